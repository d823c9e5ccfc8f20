import json

import pytest

SUM = [{"role": "user", "content": "Use 3, 5, 7 to make 22."}]
TOOLS = [
    {
        "name": name,
        "input_schema": {
            "type": "object",
            "properties": {"x": {"enum": ["a", "b"]}},
            "required": ["x"],
            "additionalProperties": False,
        },
    }
    for name in ("look", "add")
]
ONE = {"type": "any", "disable_parallel_tool_use": True}


def create(client, **fields):
    body = {"model": "mini", "messages": SUM, "max_tokens": 100, "temperature": 0, **fields}
    return client.post("/v1/messages", json=body, headers={"anthropic-version": "2023-06-01"})


def folded(stream):
    """The message of a stream, as Anthropic's client joins it; checks the order of the events."""
    message, is_open = stream[0]["message"], False
    assert [stream[0]["type"], stream[1]["type"], stream[-1]["type"]] == [
        "message_start",
        "ping",
        "message_stop",
    ]
    for event in stream[2:-1]:
        if event["type"] == "content_block_start":
            assert not is_open
            assert event["index"] == len(message["content"])
            message["content"].append({**event["content_block"]})
            is_open, arguments = True, ""
        elif event["type"] == "content_block_delta":
            delta, block = event["delta"], message["content"][event["index"]]
            kind = delta["type"]
            if kind == "input_json_delta":
                arguments += delta["partial_json"]
            else:
                name = kind.removesuffix("_delta")
                block[name] += delta[name]
        elif event["type"] == "content_block_stop":
            is_open = False
            if message["content"][-1]["type"] == "tool_use" and arguments:
                message["content"][-1]["input"] = json.loads(arguments)
        else:
            assert event["type"] == "message_delta"
            message |= {**event["delta"], "usage": event["usage"]}
    assert not is_open
    return message


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"thinking": {"type": "enabled", "budget_tokens": 1024}},
        {"thinking": {"type": "enabled", "display": "omitted"}},
        {"tools": TOOLS, "tool_choice": ONE},
        {"tools": TOOLS, "tool_choice": {"type": "tool", "name": "add"}},
        {"stop_sequences": ["+", "*"]},
        {"max_tokens": 2},
        {"system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}]},
        {"messages": [*SUM, {"role": "assistant", "content": "The answer"}]},
    ],
)
def test_the_whole_message_is_the_fold_of_the_stream(client, events, fields):
    whole, stream = (
        create(client, **fields).json(),
        folded(events(create(client, **fields, stream=True).text)),
    )
    for message in (whole, stream):
        message.pop("id")
        for number, block in enumerate(message["content"]):
            if block["type"] == "tool_use":
                assert block.pop("id").startswith("toolu_"), number
        for name in ("input_tokens", "cache_read_input_tokens"):
            message["usage"].pop(name)
    assert stream == whole


def test_reasons_to_stop_have_anthropics_names(client):
    assert create(client).json()["stop_reason"] == "end_turn"
    assert create(client, max_tokens=1).json()["stop_reason"] == "max_tokens"
    assert create(client, tools=TOOLS, tool_choice=ONE).json()["stop_reason"] == "tool_use"
    stopped = create(client, stop_sequences=["="]).json()
    assert (stopped["stop_reason"], stopped["stop_sequence"]) == ("stop_sequence", "=")


def test_tool_use_has_its_input_as_an_object(client):
    (block,) = create(client, tools=TOOLS, tool_choice={"type": "tool", "name": "add"}).json()["content"]
    assert (block["type"], block["name"]) == ("tool_use", "add")
    assert block["input"]["x"] in ("a", "b")


def test_a_history_of_thinking_and_tools_is_taken(client):
    history = [
        {"role": "user", "content": [{"type": "text", "text": "Look."}]},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "hm", "signature": "s"},
                {"type": "redacted_thinking", "data": "x"},
                {"type": "text", "text": "I look."},
                {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {"x": "a"}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "toolu_1", "content": [{"type": "text", "text": "4"}]},
                {"type": "text", "text": "So?"},
            ],
        },
    ]
    body = {"model": "mini", "messages": history, "tools": TOOLS}
    counted = client.post("/v1/messages/count_tokens?beta=true", json=body).json()["input_tokens"]
    usage = create(client, messages=history, tools=TOOLS, max_tokens=1).json()["usage"]
    assert usage["input_tokens"] + usage["cache_read_input_tokens"] == counted > 50


def test_a_billing_header_does_not_reach_the_prompt(client):
    def count(system):
        body = {"model": "mini", "messages": SUM, "system": system}
        return client.post("/v1/messages/count_tokens", json=body).json()["input_tokens"]

    block = {"type": "text", "text": "x-anthropic-billing-header: cc_version=1; cch=0a1b2;"}
    assert count([block, {"type": "text", "text": "Be brief."}]) == count("Be brief.")


@pytest.mark.parametrize(
    ("fields", "status", "kind", "words"),
    [
        ({"model": "nope"}, 404, "not_found_error", "does not exist"),
        ({"max_tokens": None}, 400, "invalid_request_error", "max_tokens"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image"}]}]},
            400,
            "invalid_request_error",
            "only text",
        ),
        ({"messages": [{"role": "user", "content": []}]}, 400, "invalid_request_error", "no content"),
        ({"tool_choice": {"type": "maybe"}}, 400, "invalid_request_error", "tool_choice.type"),
        ({"thinking": {"type": "maybe"}}, 400, "invalid_request_error", "thinking.type"),
        (
            {"messages": [{"role": "user", "content": "1 " * 600}]},
            400,
            "invalid_request_error",
            "maximum context",
        ),
    ],
)
def test_errors_have_anthropics_envelope(client, fields, status, kind, words):
    reply = create(client, **fields)
    assert reply.status_code == status
    assert reply.json()["type"] == "error"
    assert reply.json()["error"]["type"] == kind
    assert words in reply.json()["error"]["message"]
