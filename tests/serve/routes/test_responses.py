import copy

import pytest

TOOLS = [
    {
        "type": "function",
        "name": "look",
        "parameters": {
            "type": "object",
            "properties": {"x": {"enum": ["a", "b"]}},
            "required": ["x"],
            "additionalProperties": False,
        },
    },
    {"type": "web_search"},
]
CALLED = {"type": "function", "name": "look"}


def create(client, **fields):
    body = {
        "model": "mini",
        "input": "Use 3, 5, 7 to make 22.",
        "temperature": 0,
        "max_output_tokens": 80,
        **fields,
    }
    return client.post("/v1/responses", json=body)


def folded(stream):
    """The response of a stream, built from its deltas; checks the order of the events."""
    assert [event["sequence_number"] for event in stream] == list(range(len(stream)))
    assert [event["type"] for event in stream[:2]] == ["response.created", "response.in_progress"]
    response = copy.deepcopy(stream[0]["response"])
    assert response["output"] == []
    for event in stream[2:-1]:
        kind, index = event["type"].removeprefix("response."), event["output_index"]
        if kind == "output_item.added":
            assert index == len(response["output"])
            response["output"].append(copy.deepcopy(event["item"]))
            continue
        item = response["output"][index]
        assert event.get("item_id", item["id"]) == item["id"]
        if kind == "content_part.added":
            item["content"].append(copy.deepcopy(event["part"]))
        elif kind in ("output_text.delta", "reasoning_text.delta"):
            part = item["content"][event["content_index"]]
            part["text"] += event["delta"]
            if "logprobs" in event:
                part["logprobs"] += event["logprobs"]
        elif kind == "function_call_arguments.delta":
            item["arguments"] += event["delta"]
        elif kind == "output_item.done":
            item["status"] = event["item"]["status"]
            assert event["item"] == item
    return response, stream[-1]


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"max_output_tokens": 3},
        {"reasoning": {"effort": "high"}},
        {"reasoning": {"effort": "none"}},
        {"tools": TOOLS, "tool_choice": CALLED},
        {"tools": TOOLS, "tool_choice": "required", "max_output_tokens": 24},
        {"text": {"format": {"type": "json_schema", "name": "x", "schema": {"enum": ["yes", "no"]}}}},
        {"instructions": "Be brief."},
        {"top_logprobs": 2, "include": ["message.output_text.logprobs"]},
    ],
)
def test_the_whole_response_is_the_fold_of_the_stream(client, events, fields):
    whole = create(client, **fields).json()
    stream = events(create(client, **fields, stream=True).text)
    response, last = folded(stream)
    assert last["type"] == f"response.{whole['status']}"
    assert last["response"]["output"] == response["output"]
    assert len(response["output"]) == len(whole["output"]) > 0
    for one, other in zip(response["output"], whole["output"], strict=True):
        unlike = ("id", "call_id")
        assert {k: v for k, v in one.items() if k not in unlike} == {
            k: v for k, v in other.items() if k not in unlike
        }
    assert last["response"]["usage"]["output_tokens"] == whole["usage"]["output_tokens"]


def test_items_and_ends(client):
    whole = create(client, reasoning={"effort": "high"}).json()
    assert [item["type"] for item in whole["output"]] == ["reasoning", "message"]
    assert whole["usage"]["output_tokens_details"]["reasoning_tokens"] > 0
    cut = create(client, max_output_tokens=1).json()
    assert (cut["status"], cut["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})
    (call,) = create(client, tools=TOOLS, tool_choice=CALLED).json()["output"]
    assert (call["type"], call["name"], call["status"]) == ("function_call", "look", "completed")
    assert call["call_id"] != call["id"]


def test_a_history_like_that_of_codex_is_taken(client):
    history = [
        {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "Rules."}]},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Look."}]},
        {"type": "reasoning", "id": "rs_1", "summary": [], "content": None, "encrypted_content": "x"},
        {
            "type": "function_call",
            "id": "fc_1",
            "call_id": "call_1",
            "name": "look",
            "arguments": '{"x": "a"}',
        },
        {"type": "function_call_output", "call_id": "call_1", "output": "4"},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Done."}]},
        {"type": "custom_tool_call_output", "call_id": "call_2", "output": "x"},
        {"role": "user", "content": "Thanks."},
    ]
    wrapped = [{"type": "namespace", "name": "shell", "tools": TOOLS}]
    reply = create(client, input=history, tools=wrapped, client_metadata={"a": "b"}, store=False, include=[])
    assert reply.status_code == 200
    assert "x-ignored-fields" not in reply.headers


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"background": True}, "background"),
        ({"text": {"format": {"type": "xml"}}}, "text.format"),
        ({"tools": TOOLS, "tool_choice": {"type": "function", "name": "other"}}, "tool_choice"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input"),
        ({"input": [{"type": "function_call", "call_id": "x"}]}, "input"),
        ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input"),
        ({"input": []}, "messages"),
        ({"model": "gpt-9"}, "model"),
    ],
)
def test_a_wrong_request_names_its_field(client, fields, field):
    reply = create(client, **fields)
    assert reply.status_code in (400, 404)
    assert reply.json()["error"]["param"] == field


def test_logprobs_are_those_of_the_text(client):
    for fields, count in (({"top_logprobs": 2}, 2), ({"include": ["message.output_text.logprobs"]}, 0)):
        text = create(client, reasoning={"effort": "high"}, **fields).json()["output"][-1]["content"][0]
        assert "".join(entry["token"] for entry in text["logprobs"]) == text["text"]
        assert all(len(entry["top_logprobs"]) == count for entry in text["logprobs"])
        assert all(entry["logprob"] <= 0 for entry in text["logprobs"])
    assert create(client).json()["output"][-1]["content"][0]["logprobs"] == []
