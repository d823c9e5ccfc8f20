"""Requests of Claude Code and Codex are answered as these programs expect."""

import importlib.util
import json
from pathlib import Path

import httpx2
import pytest

SPEC = importlib.util.spec_from_file_location(
    "requests_of_clients", Path(__file__).with_name("requests_of_clients.py")
)
recorded = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(recorded)

SUM = [{"role": "user", "content": "Use 3, 5, 7 to make 22."}]
CUT = {"max_tokens": 60}
"""Replies as long as Claude Code allows would take a minute of the tests."""


@pytest.fixture(scope="module")
def http(root):
    with httpx2.Client(base_url=root, timeout=120) as client:
        yield client


def sent(http, path, body, headers):
    """The events of a streamed reply: (name, data)."""
    with http.stream("POST", path, json=body, headers=headers) as reply:
        assert reply.status_code == 200, reply.read()
        assert reply.headers["content-type"].startswith("text/event-stream")
        text = "".join(reply.iter_text())
    names = [line.removeprefix("event: ") for line in text.splitlines() if line.startswith("event: ")]
    data = [
        json.loads(line.removeprefix("data: ")) for line in text.splitlines() if line.startswith("data: ")
    ]
    assert names == [event["type"] for event in data]
    return data


def claude(http, number, **fields):
    return sent(
        http,
        "/v1/messages?beta=true",
        recorded.claude_request(number, **CUT, **fields),
        recorded.CLAUDE_HEADERS,
    )


def test_claude_code_gets_a_message_with_thinking_first(http):
    start, ping, *middle, delta, stop = claude(http, 1, messages=SUM, system=[], tools=[])
    assert (start["type"], ping["type"]) == ("message_start", "ping")
    assert (delta["type"], stop["type"]) == ("message_delta", "message_stop")
    assert start["message"]["content"] == []
    blocks = [event["content_block"]["type"] for event in middle if event["type"] == "content_block_start"]
    assert blocks[0] == "thinking"
    assert [event["index"] for event in middle if event["type"] == "content_block_stop"] == list(
        range(len(blocks))
    )
    assert any(event.get("delta", {}).get("type") == "signature_delta" for event in middle)
    assert delta["delta"]["stop_reason"] in ("end_turn", "max_tokens", "tool_use")
    assert delta["usage"]["output_tokens"] > 0


def test_the_billing_header_does_not_defeat_the_cache(http):
    claude(http, 2)
    usage = claude(http, 3)[-2]["usage"]
    assert usage["cache_read_input_tokens"] > 5 * usage["input_tokens"] > 0


def test_claude_codes_counts_are_those_of_the_reply(http):
    fields = ("model", "system", "messages", "tools", "thinking")
    body = {name: value for name, value in recorded.claude_request(4).items() if name in fields}
    counted = http.post("/v1/messages/count_tokens?beta=true", json=body, headers=recorded.CLAUDE_HEADERS)
    usage = claude(http, 4)[-2]["usage"]
    assert counted.json() == {"input_tokens": usage["input_tokens"] + usage["cache_read_input_tokens"]}


def test_claude_codes_first_probe_and_its_title(http):
    """A reply of one token without a stream, and a schema."""
    probe = {
        "model": "claude-sonnet-4-5",
        "max_tokens": 1,
        "messages": [{"role": "user", "content": "quota"}],
    }
    reply = http.post("/v1/messages?beta=true", json=probe, headers=recorded.CLAUDE_HEADERS).json()
    assert (reply["type"], reply["stop_reason"]) == ("message", "max_tokens")
    form = {"type": "json_schema", "schema": recorded.schema({"title": {"enum": ["a", "b"]}}, "title")}
    config = {"output_config": {"format": form}, "thinking": {"type": "disabled"}, "tools": []}
    texts = [
        event["delta"].get("text", "")
        for event in claude(http, 5, **config)
        if "index" in event and "delta" in event
    ]
    assert json.loads("".join(texts)) in ({"title": "a"}, {"title": "b"})


def test_claude_code_gets_anthropics_errors(http):
    for fields, status in (({"model": "claude-unknown-9"}, 404), ({"messages": []}, 400)):
        body = recorded.claude_request(6, **fields)
        reply = http.post("/v1/messages?beta=true", json=body, headers=recorded.CLAUDE_HEADERS)
        assert reply.status_code == status
        assert reply.json()["type"] == "error"
        assert reply.headers["x-request-id"].startswith("req_")


@pytest.mark.parametrize("path", ["/v1/responses", "/responses"])
def test_codex_gets_whole_responses_with_the_same_ids(http, path):
    events = sent(http, path, recorded.codex_request(max_output_tokens=60), recorded.CODEX_HEADERS)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert [event["type"] for event in events[:2]] == ["response.created", "response.in_progress"]
    assert events[-1]["type"] in ("response.completed", "response.incomplete")
    responses = [event["response"] for event in events if "response" in event]
    assert len({response["id"] for response in responses}) == 1
    assert all(set(response) == set(responses[0]) for response in responses)
    added = {
        event["output_index"]: event["item"]["id"] for event in events if event["type"].endswith("item.added")
    }
    done = {event["output_index"]: event["item"] for event in events if event["type"].endswith("item.done")}
    final = responses[-1]["output"]
    assert [added[index] for index in sorted(added)] == [item["id"] for item in final]
    assert [done[index] for index in sorted(done)] == final
    assert all(event["item_id"] == added[event["output_index"]] for event in events if "item_id" in event)
    assert {item["type"] for item in final} <= {"reasoning", "message", "function_call"}
    usage = responses[-1]["usage"]
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]


def test_codex_sees_response_completed_when_the_model_ends(http):
    body = recorded.codex_request(input="Use 3, 5, 7 to make 22.", instructions=None, tools=[])
    events = sent(http, "/v1/responses", body, recorded.CODEX_HEADERS)
    assert events[-1]["type"] == "response.completed"
    assert events[-1]["response"]["output"][-1]["content"][0]["text"]


def test_codex_calls_a_tool_of_a_namespace(http):
    inner = {
        "type": "function",
        "name": "find",
        "parameters": recorded.schema({"q": {"enum": ["a", "b"]}}, "q"),
    }
    spaces = [{"type": "namespace", "name": f"mcp__{name}", "tools": [inner]} for name in ("a", "b")]
    tools = [*spaces, {"type": "web_search"}]
    fields = {"tools": tools, "tool_choice": "required", "parallel_tool_calls": False, "reasoning": None}
    events = sent(http, "/v1/responses", recorded.codex_request(**fields), recorded.CODEX_HEADERS)
    assert events[-1]["type"] == "response.completed"
    (call,) = events[-1]["response"]["output"]
    assert (call["type"], call["name"]) == ("function_call", "find")
    assert call["namespace"] in ("mcp__a", "mcp__b")
    added = [event["item"] for event in events if event["type"] == "response.output_item.added"]
    assert [(item["name"], item["namespace"]) for item in added] == [("find", call["namespace"])]
    assert json.loads(call["arguments"])["q"] in ("a", "b")
    assert call["call_id"].startswith("call_")
    assert call["call_id"] != call["id"]


def test_codex_asks_again_for_the_same_prefix(http):
    body = recorded.codex_request(max_output_tokens=1)
    replies = [sent(http, "/v1/responses", body, recorded.CODEX_HEADERS)[-1]["response"] for _ in range(2)]
    assert replies[1]["usage"]["input_tokens_details"]["cached_tokens"] > 100
