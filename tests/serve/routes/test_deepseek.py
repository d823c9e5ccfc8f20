import pytest
from starlette.testclient import TestClient

from shoestring.serve.app import build_app
from shoestring.serve.dialects.deepseek import Era

SUM = [{"role": "user", "content": "Use 3, 5, 7 to make 22."}]
STRICT = {"type": "function", "function": {"name": "f", "strict": True, "parameters": {"type": "object"}}}


def test_the_usage_of_a_stream_is_on_its_last_choice(client, events):
    body = {"model": "deepseek-chat", "messages": SUM, "max_tokens": 5, "stream": True}
    for path in ("/chat/completions", "/beta/chat/completions"):
        *chunks, done = events(client.post(path, json=body).text)
        assert done == "[DONE]"
        assert all(chunk["choices"] for chunk in chunks)
        assert [chunk for chunk in chunks if chunk.get("usage")] == chunks[-1:]
        usage = chunks[-1]["usage"]
        assert usage["prompt_cache_hit_tokens"] + usage["prompt_cache_miss_tokens"] == usage["prompt_tokens"]
        asked = client.post(path, json={**body, "stream_options": {"include_usage": True}}).text
        *chunks, _ = events(asked)
        assert all(chunk["choices"] for chunk in chunks)
        assert all(chunk["usage"] is None for chunk in chunks[:-1])


def test_every_dialect_answers_under_deepseeks_paths(client):
    assert client.get("/models").json() == client.get("/v1/models").json()
    message = {"model": "mini", "messages": SUM, "max_tokens": 3}
    assert client.post("/anthropic/v1/messages", json=message).json()["type"] == "message"
    assert client.post("/anthropic/v1/messages/count_tokens", json=message).json()["input_tokens"] > 5
    assert client.post("/responses", json={"model": "mini", "input": "hi"}).json()["object"] == "response"
    error = client.post("/anthropic/v1/messages", json={"model": "none", "messages": SUM, "max_tokens": 3})
    assert error.json()["type"] == "error"


@pytest.mark.parametrize(
    ("fields", "status", "field"),
    [
        ({"temperature": 3}, 422, "temperature"),
        ({"top_p": 1.5}, 422, "top_p"),
        ({"max_tokens": 0}, 422, "max_tokens"),
        ({"top_logprobs": 21}, 422, "top_logprobs"),
        ({"reasoning_effort": "extreme"}, 422, "reasoning_effort"),
        ({"user_id": "x" * 513}, 422, "user_id"),
        ({"user_id": "é" * 257}, 422, "user_id"),
        ({"temperature": "hot"}, 400, "temperature"),
        ({"messages": None}, 400, "messages"),
        ({"top_logprobs": 2}, 400, "top_logprobs"),
        ({"tools": [STRICT]}, 400, "tools"),
    ],
)
def test_a_parameter_out_of_range_is_422_and_a_wrong_form_400(client, fields, status, field):
    body = {"model": "mini", "messages": SUM, "max_tokens": 2, **fields}
    for path in ("/chat/completions", "/beta/chat/completions"):
        reply = client.post(path, json=body)
        assert (reply.status_code, reply.json()["error"]["param"]) == (status, field)
    if status == 422:
        assert client.post("/v1/chat/completions", json=body).status_code == 400


def test_a_body_that_is_no_json_is_a_400(client):
    headers = {"content-type": "application/json"}
    assert client.post("/chat/completions", content=b"{", headers=headers).status_code == 400


def test_efforts_of_deepseek_and_user_ids_of_512_bytes_are_taken(client):
    for effort in ("minimal", "low", "medium", "high", "xhigh", "max", "ultra"):
        body = {"model": "mini", "messages": SUM, "max_tokens": 2, "seed": 1, "reasoning_effort": effort}
        reply = client.post("/chat/completions", json={**body, "user_id": "é" * 256})
        assert reply.json()["choices"][0]["message"]["reasoning_content"]


def test_a_prefix_is_continued_also_in_the_thinking(client):
    for field in ("content", "reasoning_content"):
        prefix = {"role": "assistant", "content": "", field: "3 + 5", "prefix": True}
        body = {"model": "mini", "messages": [*SUM, prefix], "max_tokens": 4, "temperature": 0}
        message = client.post("/beta/chat/completions", json=body).json()["choices"][0]["message"]
        assert message.get(field), field


def test_anthropics_names_are_models_here_and_others_a_400(client):
    message = {"model": "claude-opus-4-5", "messages": SUM, "max_tokens": 3}
    assert client.post("/anthropic/v1/messages", json=message).json()["model"] == "mini"
    assert client.post("/anthropic/v1/messages/count_tokens", json=message).json()["input_tokens"] > 5
    assert client.post("/anthropic/v1/messages", json={**message, "model": "gpt-9"}).status_code == 400
    assert client.post("/v1/messages", json=message).status_code == 404


def test_the_era_is_a_setting_of_the_service(new_service):
    service = new_service()
    service.deepseek_era = Era.EARLY_2025
    service.aliases["deepseek-reasoner"] = "mini"
    with TestClient(build_app(service)) as client:
        body = {"model": "deepseek-reasoner", "messages": SUM, "max_tokens": 4, "logprobs": True}
        assert client.post("/chat/completions", json=body).status_code == 400
        assert client.post("/v1/chat/completions", json=body).status_code == 200
        message = client.post("/chat/completions", json={**body, "logprobs": None}).json()["choices"][0][
            "message"
        ]
        assert message["reasoning_content"]


def joined(chunks, name):
    return [value for chunk in chunks if chunk["logprobs"] for value in chunk["logprobs"][name]]


@pytest.mark.parametrize("stream", [False, True])
def test_an_echo_begins_with_the_prompt_and_its_logprobs(client, events, stream):
    body = {"model": "mini", "prompt": "Use 3, 5", "max_tokens": 2, "temperature": 0, "logprobs": 1, "n": 2}
    plain = client.post("/beta/completions", json=body).json()["choices"]
    reply = client.post("/beta/completions", json={**body, "echo": True, "stream": stream})
    parts = events(reply.text)[:-1] if stream else [reply.json()]
    for number, choice in enumerate(plain):
        chunks = [part for each in parts for part in each["choices"] if part["index"] == number]
        assert "".join(chunk["text"] for chunk in chunks) == body["prompt"] + choice["text"]
        values = joined(chunks, "token_logprobs")
        assert values[-2:] == choice["logprobs"]["token_logprobs"]
        assert all(value < 0 for value in values)
        assert "".join(joined(chunks, "tokens")) == body["prompt"] + choice["text"]
        offsets = joined(chunks, "text_offset")
        assert offsets == sorted(offsets)
        assert len(offsets) == len(values) > 4


def test_an_echo_of_token_ids_has_no_logprob_for_the_first(client):
    ids = client.post("/tokenize", json={"model": "mini", "prompt": "Use 3, 5"}).json()["tokens"]
    body = {"model": "mini", "prompt": ids, "max_tokens": 1, "logprobs": 0, "echo": True}
    choice = client.post("/v1/completions", json=body).json()["choices"][0]
    assert choice["logprobs"]["token_logprobs"][0] is None
    assert choice["logprobs"]["top_logprobs"][:2] == [None, {}]
    assert len(choice["logprobs"]["token_logprobs"]) == len(ids) + 1
