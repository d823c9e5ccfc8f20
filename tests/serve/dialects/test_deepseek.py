import pytest

from shoestring.serve.backends.errors import RequestError
from shoestring.serve.dialects.deepseek import (
    Era,
    claude_model,
    deepseek_chat,
    deepseek_completion,
)
from shoestring.serve.dialects.openai_chat_request import ChatCompletionRequest, asks_thinking
from shoestring.serve.dialects.openai_completions import CompletionRequest

ASK = {"role": "user", "content": "Give me JSON."}
CALL = {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
TOOL = {"type": "function", "function": {"name": "look"}}
CALLED = [
    ASK,
    {"role": "assistant", "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "call_1", "content": "4"},
]
WITH_THINKING = [ASK, {"role": "assistant", "content": "a", "reasoning_content": "b"}, ASK]
PREFIX = [ASK, {"role": "assistant", "content": "{", "prefix": True}]


def chat(era, **fields):
    body = {"model": "deepseek-reasoner", "messages": [ASK], **fields}
    return deepseek_chat(ChatCompletionRequest.model_validate(body), era)


@pytest.mark.parametrize(
    ("era", "fields", "words"),
    [
        ("2025-01", {"messages": WITH_THINKING}, "must not be sent back"),
        ("2025-05", {"messages": WITH_THINKING}, "must not be sent back"),
        ("2025-01", {"logprobs": True}, "no logprobs"),
        ("2025-05", {"logprobs": True}, "no logprobs"),
        ("2025-01", {"tools": [TOOL]}, "no tools"),
        ("2025-01", {"response_format": {"type": "json_object"}}, "no JSON output"),
        ("2025-01", {"messages": PREFIX}, "no prefixes"),
        ("2026", {"messages": CALLED, "tools": [TOOL]}, "must be passed back to the API"),
        ("2026", {"messages": CALLED, "tools": [TOOL], "model": "mini"}, "must be passed back to the API"),
        (
            "2026",
            {"messages": [{"role": "user", "content": "Hi"}], "response_format": {"type": "json_object"}},
            "the word json",
        ),
    ],
)
def test_an_era_refuses_what_it_refused_and_any_takes_it(era, fields, words):
    with pytest.raises(RequestError, match=words) as error:
        chat(Era(era), **fields)
    assert error.value.status == 400
    chat(Era.ANY, **fields)


@pytest.mark.parametrize(
    ("era", "fields"),
    [
        ("2025-01", {}),
        ("2025-01", {"model": "deepseek-chat", "messages": CALLED, "tools": [TOOL], "logprobs": True}),
        ("2025-05", {"messages": PREFIX, "response_format": {"type": "json_object"}}),
        ("2026", {"messages": WITH_THINKING, "logprobs": True}),
        ("2026", {"messages": CALLED, "tools": [TOOL], "thinking": {"type": "disabled"}}),
        ("2026", {"messages": [ASK, {**CALLED[1], "reasoning_content": ""}, CALLED[2]], "tools": [TOOL]}),
    ],
)
def test_an_era_takes_what_it_took(era, fields):
    chat(Era(era), **fields)


@pytest.mark.parametrize(
    ("era", "fields", "thinks"),
    [
        (Era.ANY, {}, True),
        (Era.ANY, {"model": "deepseek-chat"}, False),
        (Era.ANY, {"model": "mini"}, None),
        (Era.LATE_2026, {"model": "mini"}, True),
        (Era.LATE_2026, {"model": "deepseek-chat"}, False),
        (Era.ANY, {"thinking": {"type": "disabled"}}, False),
        (Era.ANY, {"reasoning_effort": "none"}, False),
        (Era.ANY, {"model": "deepseek-chat", "reasoning_effort": "ultra"}, True),
    ],
)
def test_the_switch_of_thinking(era, fields, thinks):
    assert asks_thinking(chat(era, **fields)) is thinks


def test_sampling_is_ignored_while_thinking_and_only_then():
    hot = {"temperature": 1.5, "top_p": 0.5, "presence_penalty": 1.0, "seed": 3}
    body = chat(Era.EARLY_2025, **hot)
    assert (body.temperature, body.top_p, body.presence_penalty, body.seed) == (None, None, None, 3)
    assert chat(Era.EARLY_2025, model="deepseek-chat", **hot).temperature == 1.5
    assert chat(Era.ANY, **hot).temperature == 1.5


def test_completions_have_no_thinking_and_a_limit():
    text = {"model": "deepseek-chat", "prompt": "a"}
    for fields, status in (({"model": "deepseek-reasoner"}, 400), ({"max_tokens": 5000}, 422)):
        body = CompletionRequest.model_validate({**text, **fields})
        assert deepseek_completion(body, Era.ANY) is body
        with pytest.raises(RequestError) as error:
            deepseek_completion(body, Era.MID_2025)
        assert error.value.status == status


def test_names_of_anthropics_models_are_names_of_ours():
    names = ["v4-flash", "v4-pro", "mini"]
    assert claude_model("claude-opus-4-5", names) == "v4-pro"
    assert claude_model("claude-sonnet-4-5", names) == "v4-flash"
    assert claude_model("claude-haiku-5", ["mini"]) == "mini"
    assert claude_model("mini", names) == "mini"
    with pytest.raises(RequestError, match="does not exist") as error:
        claude_model("gpt-9", names)
    assert error.value.status == 400
