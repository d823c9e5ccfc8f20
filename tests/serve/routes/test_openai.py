import json

import pytest

SUM = [{"role": "user", "content": "Use 3, 5, 7 to make 22."}]
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": name,
            "parameters": {
                "type": "object",
                "properties": {"x": {"enum": ["a", "b"]}},
                "required": ["x"],
                "additionalProperties": False,
            },
        },
    }
    for name in ("look", "add")
]
SCHEMA = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"enum": ["yes", "no"]}}}
REQUESTS = [
    {},
    {"n": 3},
    {"max_tokens": 3},
    {"stop": ["=", "+"]},
    {"tools": TOOLS, "tool_choice": "required"},
    {"tools": TOOLS, "tool_choice": "required", "max_tokens": 12},
    {"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "add"}}},
    {"tools": TOOLS},
    {"response_format": SCHEMA},
    {"response_format": SCHEMA, "thinking": {"type": "enabled"}, "max_tokens": 100},
    {"response_format": {"type": "json_object", "schema": {"enum": ["yes", "no"]}}},
    {"response_format": {"type": "json_object"}, "max_tokens": 30, "reasoning_effort": "none"},
    {"logprobs": True, "top_logprobs": 2},
    {"messages": [*SUM, {"role": "assistant", "content": "The answer", "prefix": True}]},
]


def create(client, **fields):
    body = {"model": "mini", "messages": SUM, "seed": 1, "max_tokens": 60, "temperature": 0, **fields}
    return client.post("/v1/chat/completions", json=body)


def folded(chunks):
    """The choices of a stream, as a client joins them."""
    choices: dict[int, dict] = {}
    for part in (part for chunk in chunks for part in chunk["choices"]):
        choice = choices.setdefault(part["index"], {"message": {}, "finish_reason": None, "logprobs": []})
        assert choice["finish_reason"] is None, "nothing follows the finish reason"
        choice["finish_reason"] = part["finish_reason"]
        assert part["finish_reason"] is None or part["delta"] == {}, "it has a chunk of its own"
        choice["logprobs"] += (part["logprobs"] or {"content": []})["content"]
        for name, value in part["delta"].items():
            if name == "tool_calls":
                for call in value:
                    calls = choice["message"].setdefault("tool_calls", [])
                    if call["index"] == len(calls):
                        calls.append({"name": call["function"]["name"], "arguments": "", "id": call["id"]})
                    calls[call["index"]]["arguments"] += call["function"]["arguments"]
            else:
                choice["message"][name] = choice["message"].get(name, "") + value
    return [choices[index] for index in sorted(choices)]


@pytest.mark.parametrize("fields", REQUESTS)
def test_the_whole_reply_is_the_fold_of_the_stream(client, events, fields):
    whole = create(client, **fields).json()
    *chunks, done = events(create(client, **fields, stream=True, stream_options={"include_usage": True}).text)
    assert done == "[DONE]"
    *chunks, last = chunks
    assert last["choices"] == []
    whole["usage"].pop("prompt_cache_hit_tokens"), last["usage"].pop("prompt_cache_hit_tokens")
    for name in ("prompt_tokens", "completion_tokens", "total_tokens", "completion_tokens_details"):
        assert last["usage"][name] == whole["usage"][name]
    assert all(chunk["usage"] is None for chunk in chunks)
    assert {chunk["id"] for chunk in chunks} == {last["id"]}
    stream = folded(chunks)
    assert len(stream) == len(whole["choices"]) == fields.get("n", 1)
    for part, choice in zip(stream, whole["choices"], strict=True):
        message = choice["message"]
        assert part["message"]["role"] == "assistant"
        assert part["message"]["content"] == (message["content"] or "")
        assert part["message"].get("reasoning_content") == message.get("reasoning_content")
        assert part["finish_reason"] == choice["finish_reason"]
        calls = [{**call["function"]} for call in message.get("tool_calls", [])]
        assert [
            {k: call[k] for k in ("name", "arguments")} for call in part["message"].get("tool_calls", [])
        ] == calls
        if fields.get("logprobs"):
            assert part["logprobs"] == choice["logprobs"]["content"]
            assert all(len(entry["top_logprobs"]) == 2 for entry in part["logprobs"])


def test_tool_calls_follow_their_schema_and_end_with_tool_calls(client):
    choice = create(
        client, tools=TOOLS, tool_choice="required", parallel_tool_calls=False, max_tokens=300
    ).json()["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    for call in choice["message"]["tool_calls"]:
        assert call["type"] == "function"
        assert call["id"].startswith("call_")
        assert json.loads(call["function"]["arguments"])["x"] in ("a", "b")


def test_a_call_that_is_cut_ends_with_length(client):
    choice = create(client, tools=TOOLS, tool_choice="required", max_tokens=12).json()["choices"][0]
    assert choice["finish_reason"] == "length"


def test_a_schema_holds_with_and_without_thinking(client):
    for fields in ({"thinking": {"type": "enabled"}, "max_tokens": 200}, {"reasoning_effort": "none"}):
        message = create(client, response_format=SCHEMA, **fields).json()["choices"][0]["message"]
        assert json.loads(message["content"]) in ("yes", "no")
        assert bool(message.get("reasoning_content")) == ("thinking" in fields)


def test_a_form_and_tools_go_together(client):
    """The answer is in the form, unless it is a call."""
    one = {"tool_choice": "required", "parallel_tool_calls": False, "max_tokens": 300}
    calls = create(client, tools=TOOLS, response_format=SCHEMA, **one).json()
    assert calls["choices"][0]["finish_reason"] == "tool_calls"
    for form in (SCHEMA, {"type": "json_object"}):
        kinds = set()
        for seed in range(3):
            fields = {"response_format": form, "seed": seed, "temperature": 2, "max_tokens": 200}
            choice = create(client, tools=TOOLS, **fields).json()["choices"][0]
            kinds.add(choice["finish_reason"])
            if choice["finish_reason"] == "stop":
                assert form is not SCHEMA or json.loads(choice["message"]["content"]) in ("yes", "no")
        assert kinds & {"stop", "tool_calls"}


def test_no_tag_is_left_in_the_content(client):
    message = create(client).json()["choices"][0]["message"]
    assert "think" not in message["content"]
    assert message["reasoning_content"] == message["reasoning"] != ""


def test_cached_prompt_tokens_are_counted(client):
    long = [{"role": "user", "content": "Use 1, 2, 3, 4, 5, 6 to make 21. " * 9}]
    first, second = (create(client, messages=long, max_tokens=1).json()["usage"] for _ in range(2))
    assert first["prompt_tokens"] == second["prompt_tokens"]
    assert second["prompt_tokens_details"]["cached_tokens"] == second["prompt_cache_hit_tokens"] > 0
    other = create(client, messages=long, max_tokens=1, user_id="other").json()["usage"]
    assert other["prompt_cache_hit_tokens"] == 0
    assert other["prompt_cache_miss_tokens"] == other["prompt_tokens"]


@pytest.mark.parametrize(
    ("fields", "status", "field", "words"),
    [
        ({"model": "gpt-9"}, 404, "model", "does not exist"),
        ({"messages": []}, 400, "messages", "at least 1"),
        ({"messages": [{"role": "robot", "content": "x"}]}, 400, "messages.0.role", "Input should be"),
        ({"temperature": 3}, 400, "temperature", "less than or equal to 2"),
        ({"max_tokens": 0}, 400, "max_tokens", "greater than or equal"),
        ({"functions": [{"name": "f"}]}, 400, "functions", "not supported"),
        ({"audio": {"voice": "x"}}, 400, "audio", "not supported"),
        ({"top_logprobs": 2}, 400, "top_logprobs", "needs logprobs"),
        ({"tool_choice": "required"}, 400, "tool_choice", "needs tools"),
        ({"tools": TOOLS, "tool_choice": "perhaps"}, 400, "tool_choice", "must be auto"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, 400, "tools", "name of 1 to 64"),
        ({"response_format": {"type": "json_object", "schema": 3}}, 400, "response_format", "no schema"),
        (
            {"add_generation_prompt": True, "continue_final_message": True},
            400,
            "continue_final_message",
            "exclude each other",
        ),
        ({"response_format": {"type": "xml"}}, 400, "response_format", "must be text"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "no"}}}},
            400,
            "response_format",
            "type",
        ),
        (
            {"messages": [{"role": "user", "content": "1 " * 600}]},
            400,
            "messages",
            "maximum context length is 512",
        ),
        ({"logit_bias": {"99999999": 1}}, 400, None, "token id"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, 400, "messages", "not text"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_a_wrong_request_is_one_sentence_that_names_the_field(client, fields, status, field, words, stream):
    reply = create(client, **fields, stream=stream)
    assert reply.status_code == status
    error = reply.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert words in error["message"]
    assert error["param"] == field


def test_unknown_fields_are_ignored_and_named_in_a_header(client):
    reply = create(client, max_tokens=1, frobnicate=3, store=True, **{"bad\nname": 1})
    assert reply.status_code == 200
    assert reply.headers["x-ignored-fields"] == "frobnicate"


def test_a_body_that_is_no_json_is_a_400(client):
    reply = client.post("/v1/chat/completions", content=b"{", headers={"content-type": "application/json"})
    assert reply.status_code == 400
    assert "JSON" in reply.json()["error"]["message"]


@pytest.mark.parametrize(
    ("content", "status", "words"),
    [
        (b'{"model": "' + b"m" * (17 << 20) + b'"}', 413, "longer than 16 MiB"),
        (b"[" * 100_000, 400, "pars"),
        (b'{"model": "mini", "messages": [{"role": "user", "content": "\\ud800"}]}', 400, "surrogate"),
        (b'{"model": "\\ud800", "messages": [{"role": "user", "content": "a"}]}', 400, "model"),
        (b'{"model": "mini", "messages": "\xff"}', 400, ""),
        (b"null", 400, "valid dictionary"),
    ],
)
def test_hostile_bodies_are_refused(client, content, status, words):
    headers = {"content-type": "application/json"}
    reply = client.post("/v1/chat/completions", content=content, headers=headers)
    assert reply.status_code == status
    assert words in reply.json()["error"]["message"]


def test_models_are_listed_with_their_context(client):
    listed = client.get("/v1/models").json()
    assert [model["id"] for model in listed["data"]] == ["mini"]
    assert client.get("/v1/models/mini").json() == listed["data"][0]
    assert listed["data"][0]["max_model_len"] == 512
    assert client.get("/v1/models/a/b").status_code == 404


def test_an_alias_answers_and_the_model_is_named(client):
    assert create(client, model="deepseek-chat", max_tokens=1).json()["model"] == "mini"


def test_unknown_paths_and_methods_are_errors_of_the_dialect(client):
    assert client.get("/v1/nothing").json()["error"]["param"] is None
    assert client.get("/v1/chat/completions").status_code == 405
