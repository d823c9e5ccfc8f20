"""openai-python against the live server."""

import asyncio
import json

import openai
import pytest
from pydantic import BaseModel

SUM = [{"role": "user", "content": "Use 3, 5, 7 to make 22."}]
LOOK = {
    "type": "object",
    "properties": {"x": {"type": "string", "enum": ["left", "right"]}},
    "required": ["x"],
    "additionalProperties": False,
}
TOOLS = [{"type": "function", "function": {"name": "look", "description": "Look.", "parameters": LOOK}}]
FLAT_TOOLS = [{"type": "function", "name": "look", "parameters": LOOK, "strict": True}]
CHAT = {"model": "mini", "messages": SUM, "temperature": 0, "max_tokens": 120, "seed": 1}


class Verdict(BaseModel):
    right: bool


@pytest.fixture(scope="module")
def client(root):
    with openai.OpenAI(base_url=f"{root}/v1", api_key="none", max_retries=0) as client:
        yield client


def test_models(client):
    (model,) = client.models.list()
    assert client.models.retrieve("mini") == client.models.retrieve(model.id) == model
    assert model.owned_by == "shoestring"


def test_a_chat_whole_and_streamed(client):
    whole = client.chat.completions.create(**CHAT)
    assert whole.choices[0].finish_reason == "stop"
    assert whole.usage.completion_tokens_details.reasoning_tokens > 0
    assert whole.choices[0].message.reasoning_content
    with client.chat.completions.stream(**CHAT, stream_options={"include_usage": True}) as stream:
        kinds = {event.type for event in stream}
        final = stream.get_final_completion()
    assert {"content.delta", "content.done", "chunk"} <= kinds
    assert final.choices[0].message.content == whole.choices[0].message.content
    assert final.choices[0].finish_reason == "stop"
    assert final.usage.completion_tokens == whole.usage.completion_tokens


def test_thinking_is_streamed_before_the_answer(client):
    chunks = [chunk.choices[0].delta for chunk in client.chat.completions.create(**CHAT, stream=True)]
    thinking = [bool(getattr(delta, "reasoning_content", None)) for delta in chunks]
    text = [bool(delta.content) for delta in chunks]
    assert max(i for i, value in enumerate(thinking) if value) < min(
        i for i, value in enumerate(text) if value
    )
    off = client.chat.completions.create(**CHAT, reasoning_effort="none")
    assert off.usage.completion_tokens > 0


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "look"}}])
def test_tool_calls_whole_and_streamed(client, choice):
    fields = {**CHAT, "tools": TOOLS, "tool_choice": choice, "parallel_tool_calls": False}
    whole = client.chat.completions.create(**fields).choices[0]
    (call,) = whole.message.tool_calls
    assert whole.finish_reason == "tool_calls"
    assert json.loads(call.function.arguments)["x"] in ("left", "right")
    with client.chat.completions.stream(**fields) as stream:
        done = [event for event in stream if event.type == "tool_calls.function.arguments.done"]
        final = stream.get_final_completion().choices[0].message.tool_calls
    assert [call.function.name for call in final] == ["look"]
    assert final[0].function.arguments == call.function.arguments
    assert len(done) == 1
    history = [*SUM, whole.message, {"role": "tool", "tool_call_id": call.id, "content": "4"}]
    again = client.chat.completions.create(**{**fields, "messages": history, "tool_choice": "none"})
    assert again.choices[0].message.tool_calls is None


def test_a_string_of_a_call_may_be_bounded_by_its_schema(client):
    text = {
        "type": "object",
        "properties": {"q": {"type": "string", "maxLength": 8}},
        "required": ["q"],
        "additionalProperties": False,
    }
    tool = {"type": "function", "function": {"name": "find", "parameters": text}}
    forced = {"tools": [tool], "tool_choice": "required", "parallel_tool_calls": False}
    choice = client.chat.completions.create(**CHAT, **forced).choices[0]
    assert choice.finish_reason == "tool_calls"
    assert len(json.loads(choice.message.tool_calls[0].function.arguments)["q"]) <= 8


def test_a_schema_is_parsed_whole_and_streamed(client):
    verdict = client.chat.completions.parse(**CHAT, response_format=Verdict).choices[0].message.parsed
    assert isinstance(verdict, Verdict)
    with client.chat.completions.stream(**CHAT, response_format=Verdict) as stream:
        assert stream.get_final_completion().choices[0].message.parsed == verdict
    strict = [{"type": "function", "function": {**TOOLS[0]["function"], "strict": True}}]
    with client.chat.completions.stream(**CHAT, response_format=Verdict, tools=strict) as stream:
        message = stream.get_final_completion().choices[0].message
    assert message.parsed is not None or message.tool_calls


def test_logprobs_stops_choices_and_bias(client):
    fields = {**CHAT, "logprobs": True, "top_logprobs": 2, "n": 2, "stop": ["="], "temperature": 1}
    choices = client.chat.completions.create(**fields).choices
    assert len(choices) == 2
    assert all(len(entry.top_logprobs) == 2 for choice in choices for entry in choice.logprobs.content)
    assert all("=" not in (choice.message.content or "") for choice in choices)


def test_completions_whole_streamed_and_echoed(client):
    fields = {"model": "mini", "prompt": "Use 3, 5", "max_tokens": 8, "temperature": 0, "logprobs": 1}
    whole = client.completions.create(**fields).choices[0]
    assert (
        "".join(chunk.choices[0].text for chunk in client.completions.create(**fields, stream=True))
        == whole.text
    )
    echo = client.completions.create(**fields, echo=True).choices[0]
    assert echo.text == "Use 3, 5" + whole.text
    assert echo.logprobs.token_logprobs[-8:] == whole.logprobs.token_logprobs


def test_responses_whole_streamed_and_parsed(client):
    fields = {"model": "mini", "input": "Use 3, 5, 7 to make 22.", "temperature": 0, "max_output_tokens": 200}
    whole = client.responses.create(**fields, reasoning={"effort": "high"})
    assert [item.type for item in whole.output] == ["reasoning", "message"]
    with client.responses.stream(**fields, reasoning={"effort": "high"}) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_response()
    assert kinds[0] == "response.created"
    assert kinds[-1] == "response.completed"
    assert final.output_text == whole.output_text != ""
    assert final.usage.output_tokens == whole.usage.output_tokens
    assert isinstance(client.responses.parse(**fields, text_format=Verdict).output_parsed, Verdict)


def test_calls_of_responses(client):
    fields = {"model": "mini", "input": "Look.", "temperature": 0, "max_output_tokens": 200}
    tools = {"tools": FLAT_TOOLS, "tool_choice": "required", "parallel_tool_calls": False}
    with client.responses.stream(**fields, **tools) as stream:
        list(stream)
        (call,) = stream.get_final_response().output
    assert (call.type, call.name) == ("function_call", "look")
    history = [
        {"role": "user", "content": "Look."},
        call.model_dump(exclude={"parsed_arguments"}),
        {"type": "function_call_output", "call_id": call.call_id, "output": "4"},
    ]
    again = client.responses.create(**{**fields, "input": history}, tools=FLAT_TOOLS, tool_choice="none")
    assert again.output[-1].type in ("message", "reasoning")


def test_deepseeks_base_url(root):
    with openai.OpenAI(base_url=f"{root}/beta", api_key="none", max_retries=0) as client:
        fields = {**CHAT, "model": "deepseek-reasoner"}
        *_, last = client.chat.completions.create(**fields, stream=True)
        assert last.choices[0].finish_reason == "stop"
        assert (
            last.usage.prompt_cache_hit_tokens + last.usage.prompt_cache_miss_tokens
            == last.usage.prompt_tokens
        )
        prefix = [*SUM, {"role": "assistant", "content": "3 + 5", "prefix": True}]
        off = {"thinking": {"type": "disabled"}}
        assert client.chat.completions.create(**{**CHAT, "messages": prefix}, extra_body=off).choices
        with pytest.raises(openai.UnprocessableEntityError):
            client.chat.completions.create(**{**CHAT, "temperature": 3})


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("fields", "error", "words"),
    [
        ({"model": "gpt-9"}, openai.NotFoundError, "does not exist"),
        ({"temperature": 3}, openai.BadRequestError, "temperature"),
        (
            {"messages": [{"role": "user", "content": "1 " * 20_000}]},
            openai.BadRequestError,
            "context length",
        ),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, openai.BadRequestError, "tools"),
    ],
)
def test_errors_are_the_clients_own(client, fields, error, words, stream):
    with pytest.raises(error, match=words) as caught:
        client.chat.completions.create(**{**CHAT, **fields}, stream=stream)
    assert caught.value.request_id.startswith("req_")
    assert caught.value.body["type"] == "invalid_request_error"


def test_the_asynchronous_client(root):
    async def text() -> str:
        async with openai.AsyncOpenAI(base_url=f"{root}/v1", api_key="none") as client:
            stream = await client.chat.completions.create(**CHAT, stream=True)
            return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

    assert asyncio.run(text())
