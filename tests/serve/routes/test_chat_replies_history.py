"""Histories that other programs wrote wrongly are answered or refused, and never a failure of the server."""

import pytest

ASK = {"role": "user", "content": "Look."}
ARGUMENTS = ["", "{", '{"x": ', "null", "[1]", '"text"', '{"x": NaN}', "3", '{"x": "\\ud800"}', "{}" * 3]


def call(arguments, **fields):
    return {
        "id": "call_1",
        "type": "function",
        "function": {"name": "look", "arguments": arguments},
        **fields,
    }


def outcomes(client, path, body):
    replies = [client.post(path, json={**body, "stream": stream}) for stream in (False, True)]
    assert {reply.status_code for reply in replies} <= {200, 400}, replies[0].text
    assert len({reply.status_code for reply in replies}) == 1
    assert "the server failed" not in replies[1].text
    return replies[0].status_code


@pytest.mark.parametrize("arguments", ARGUMENTS)
def test_arguments_that_are_no_object(client, arguments):
    turn = {"role": "assistant", "content": None, "tool_calls": [call(arguments)]}
    history = [ASK, turn, {"role": "tool", "tool_call_id": "call_1", "content": "4"}]
    chat = {"model": "mini", "messages": history, "max_tokens": 2}
    assert outcomes(client, "/v1/chat/completions", chat) == 200
    items = [
        {"role": "user", "content": "Look."},
        {"type": "function_call", "name": "look", "call_id": "call_1", "arguments": arguments},
        {"type": "function_call_output", "call_id": "call_1", "output": "4"},
    ]
    assert outcomes(client, "/v1/responses", {"model": "mini", "input": items, "max_output_tokens": 2}) == 200


@pytest.mark.parametrize(
    "turns",
    [
        [{"role": "tool", "tool_call_id": "call_9", "content": "4"}],
        [{"role": "assistant", "tool_calls": [call("{}", id=None)]}],
        [{"role": "assistant", "tool_calls": [{"function": {}}]}],
        [{"role": "assistant", "tool_calls": [{}]}],
        [{"role": "assistant", "content": "", "tool_calls": []}],
        [{"role": "assistant", "content": "a"}, {"role": "assistant", "content": "b"}],
        [{"role": "assistant", "content": [{"type": "text", "text": "a"}], "reasoning": "b"}],
        [{"role": "assistant", "tool_calls": [call("{}")] * 3}, {"role": "user", "content": "no result"}],
    ],
)
def test_turns_out_of_order(client, turns):
    body = {"model": "mini", "messages": [ASK, *turns, ASK], "max_tokens": 2}
    for path in ("/v1/chat/completions", "/beta/chat/completions"):
        outcomes(client, path, body)


@pytest.mark.parametrize(
    "block",
    [
        {"type": "tool_use", "id": "t", "name": "look", "input": "text"},
        {"type": "tool_use", "id": None, "name": None, "input": [1]},
        {"type": "tool_use"},
        {"type": "thinking"},
        {"type": "thinking", "thinking": 3},
        {"type": "text", "text": ""},
        {"type": "text"},
        {},
    ],
)
def test_blocks_of_messages(client, block):
    history = [ASK, {"role": "assistant", "content": [block]}, ASK]
    outcomes(client, "/v1/messages", {"model": "mini", "messages": history, "max_tokens": 2})
    result = {"type": "tool_result", "tool_use_id": 3, "content": [block]}
    history = [ASK, {"role": "user", "content": [result]}]
    outcomes(client, "/v1/messages", {"model": "mini", "messages": history, "max_tokens": 2})
