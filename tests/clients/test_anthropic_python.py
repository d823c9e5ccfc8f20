"""anthropic-python against the live server."""

import anthropic
import pytest
from pydantic import BaseModel

SUM = [{"role": "user", "content": "Use 3, 5, 7 to make 22."}]
TOOL = {
    "name": "look",
    "description": "Look.",
    "input_schema": {
        "type": "object",
        "properties": {"x": {"type": "string", "enum": ["left", "right"]}},
        "required": ["x"],
        "additionalProperties": False,
    },
}
ASK = {"model": "mini", "messages": SUM, "max_tokens": 200, "extra_body": {"temperature": 0}}
ONE_CALL = {"type": "any", "disable_parallel_tool_use": True}


class Verdict(BaseModel):
    right: bool


@pytest.fixture(scope="module", params=["", "/anthropic"])
def client(root, request):
    with anthropic.Anthropic(base_url=root + request.param, api_key="none", max_retries=0) as client:
        yield client


def test_a_message_whole_and_streamed(client):
    whole = client.messages.create(**ASK)
    assert whole.stop_reason == "end_turn"
    with client.messages.stream(**ASK) as stream:
        texts = "".join(stream.text_stream)
        final = stream.get_final_message()
    text = next(block.text for block in whole.content if block.type == "text")
    assert texts == text == next(block.text for block in final.content if block.type == "text")
    assert final.usage.output_tokens == whole.usage.output_tokens > 0
    assert final.stop_reason == "end_turn"


def test_thinking_blocks_and_their_way_back(client):
    thinking = {"type": "enabled", "budget_tokens": 1024}
    fields = {**ASK, "max_tokens": 2048, "thinking": thinking}
    whole = client.messages.create(**fields)
    assert [block.type for block in whole.content] == ["thinking", "text"]
    with client.messages.stream(**fields) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_message()
    assert {"thinking", "text", "signature"} <= set(kinds)
    assert [block.model_dump(exclude={"parsed_output"}) for block in final.content] == [
        block.model_dump() for block in whole.content
    ]
    history = [*SUM, {"role": "assistant", "content": whole.content}, {"role": "user", "content": "Again."}]
    assert client.messages.create(**{**fields, "messages": history}).content


def test_tool_use_whole_streamed_and_its_result(client):
    fields = {**ASK, "tools": [TOOL], "tool_choice": ONE_CALL}
    whole = client.messages.create(**fields)
    assert whole.stop_reason == "tool_use"
    (use,) = [block for block in whole.content if block.type == "tool_use"]
    assert use.input["x"] in ("left", "right")
    with client.messages.stream(**fields) as stream:
        assert any(event.type == "input_json" for event in stream)
        final = stream.get_final_message()
    assert final.content[-1].input == use.input
    result = [{"type": "tool_result", "tool_use_id": use.id, "content": "4"}]
    history = [*SUM, {"role": "assistant", "content": whole.content}, {"role": "user", "content": result}]
    again = client.messages.create(**{**fields, "messages": history, "tool_choice": {"type": "none"}})
    assert again.stop_reason in ("end_turn", "max_tokens")


def test_a_schema_is_parsed(client):
    message = client.messages.parse(**ASK, output_format=Verdict)
    assert isinstance(message.parsed_output, Verdict)


def test_counts_stops_and_models(client):
    count = client.messages.count_tokens(model="mini", messages=SUM, tools=[TOOL]).input_tokens
    assert count > client.messages.count_tokens(model="mini", messages=SUM).input_tokens > 5
    stopped = client.messages.create(**ASK, stop_sequences=["="])
    assert (stopped.stop_reason, stopped.stop_sequence) == ("stop_sequence", "=")
    assert client.messages.create(**{**ASK, "max_tokens": 1}).stop_reason == "max_tokens"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"max_tokens": -1}, "max_tokens"),
        ({"messages": [{"role": "user", "content": "1 " * 20_000}]}, "context length"),
        ({"tool_choice": {"type": "maybe"}}, "tool_choice"),
    ],
)
def test_errors_are_the_clients_own(client, fields, words, stream):
    with pytest.raises(anthropic.APIStatusError, match=words) as error:
        client.messages.create(**{**ASK, **fields}, stream=stream)
    assert error.value.status_code in (400, 422)
    assert error.value.body["error"]["type"] == "invalid_request_error"


def test_an_unknown_model_is_not_found(root):
    with (
        anthropic.Anthropic(base_url=root, api_key="none", max_retries=0) as client,
        pytest.raises(anthropic.NotFoundError),
    ):
        client.messages.create(**{**ASK, "model": "gpt-9"})
