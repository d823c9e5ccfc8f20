"""Conversations from rows of every form, and rows that hold none."""

import json

import pytest

from shoestring.data.forms.conversation import conversation
from shoestring.data.forms.fields import check_columns
from shoestring.data.forms.marks import Mark, read_marks
from shoestring.errors import ConfigError

TALK = [{"role": "user", "content": "2+3"}, {"role": "assistant", "content": "5"}]
SYSTEM = {"role": "system", "content": "Be brief."}
TOOL = {"type": "function", "function": {"name": "add"}}
SHAREGPT = [{"from": "human", "value": "2+3"}, {"from": "gpt", "value": "5"}]


@pytest.mark.parametrize(
    "row",
    [
        {"messages": TALK},
        {"messages": json.dumps(TALK)},
        {"messages": SHAREGPT},
        {"conversations": SHAREGPT},
        {"conversations": TALK, "system": "", "tools": "[]"},
        {"conversation": [{"from": "Human ", "value": "2+3"}, {"from": "GPT", "value": "5"}]},
        {"messages": [{**m, "tool_calls": None, "name": None} for m in TALK]},
        {"instruction": "2+3", "input": "", "output": "5"},
        {"instruction": "2+3", "output": "5", "history": []},
        {"instruction": "2+3", "context": "", "response": "5"},
        {"prompt": "2+3", "completion": "5"},
        {"prompt": TALK[:1], "completion": TALK[1:]},
        {"prompt": "2+3", "completion": TALK},
        {"question": "2+3", "answer": "5"},
        {"query": "2+3", "response": "5"},
        {"input": "2+3", "output": "5"},
    ],
)
def test_every_form_gives_the_same_messages(row):
    talk = conversation(row, {})
    if row.get("completion") == TALK:  # the prompt of text and a whole conversation
        assert talk.messages == TALK
    assert [{"role": m["role"], "content": m["content"]} for m in talk.messages] == TALK
    assert (talk.tools, talk.unread) == (None, ())


def test_alpaca_has_input_history_and_system():
    row = {
        "instruction": "Add.",
        "input": "2, 3",
        "output": "5",
        "system": "Be brief.",
        "history": [["a", "b"]],
    }
    assert conversation(row, {}).messages == [
        SYSTEM,
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "Add.\n2, 3"},
        {"role": "assistant", "content": "5"},
    ]


def test_only_the_completion_of_a_prompt_is_learned():
    row = {
        "prompt": [*TALK, {"role": "user", "content": "and 4"}],
        "completion": "9",
        "tools": json.dumps([TOOL]),
    }
    talk = conversation(row, {})
    assert [m.get("train") for m in talk.messages] == [None, False, None, None]
    assert talk.tools == [TOOL]
    marked = {**row, "prompt": [TALK[0], {**TALK[1], "weight": 1}, row["prompt"][2]]}
    assert [m.get("train") for m in conversation(marked, {}).messages] == [None] * 4


def test_tools_of_others_are_in_openais_form():
    add = {"name": "add", "parameters": {"type": "object"}}
    expected = [{"type": "function", "function": add}]
    as_text = {**add, "parameters": '{"type": "object"}'}
    for tools in ([add], json.dumps([add]), expected, [{"type": "function", "function": as_text}], [as_text]):
        assert conversation({"messages": TALK, "tools": tools}, {}).tools == expected


def test_calls_of_functions_become_tool_calls():
    call = {"name": "add", "arguments": {"a": 2}}
    expected = [{"type": "function", "function": call}]
    for talk in (
        [{"from": "human", "value": "x"}, {"from": "function_call", "value": json.dumps(call)},
         {"from": "observation", "value": "5"}],
        [{"role": "user", "content": "x"}, {"role": "assistant", "content": None, "function_call": call},
         {"role": "function", "content": "5"}],
    ):  # fmt: skip
        messages = conversation({"conversations": talk}, {}).messages
        assert messages[1] == {"role": "assistant", "content": None, "tool_calls": expected}
        assert messages[2] == {"role": "tool", "content": "5"}


@pytest.mark.parametrize("mark", [{"loss": False}, {"loss_weight": 0.0}, {"training": 0}])
def test_marks_have_other_names(mark):
    message = conversation({"messages": [TALK[0], {**TALK[1], **mark}]}, {}).messages[1]
    assert read_marks(message, "m") == (TALK[1], Mark(learn=False))


def test_thinking_is_reasoning():
    talk = [{"role": "user", "content": "x"}, {"role": "assistant", "thinking": "hm", "content": "y"}]
    assert conversation({"messages": talk}, {}).messages[1]["reasoning_content"] == "hm"


def test_parts_of_a_content_are_thinking_calls_and_text():
    call = {"name": "add", "arguments": {"a": 2}}
    parts = [
        {"type": "reasoning", "value": "hm"},
        {"type": "text", "value": "I add."},
        {"type": "tool_call", "value": json.dumps(call)},
    ]
    rows = [{"role": "user", "content": "x", "loss_weight": 0.0}, {"role": "assistant", "content": parts}]
    message = conversation({"messages": rows}, {}).messages[1]
    plain, _ = read_marks(message, "m")
    assert plain == {
        "role": "assistant",
        "content": "I add.",
        "reasoning_content": "hm",
        "tool_calls": [{"type": "function", "function": call}],
    }
    mistral = [
        {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]},
        {"type": "text", "text": "y"},
    ]
    message = conversation(
        {"messages": [{"role": "assistant", "content": mistral, "loss_weight": 0}]}, {}
    ).messages[0]
    plain, mark = read_marks(message, "m")
    assert (plain["reasoning_content"], plain["content"], mark.learn) == ("hm", "y", False)


def test_the_better_of_two_replies_to_messages_may_be_learned():
    row = {"conversations": SHAREGPT[:1], "chosen": SHAREGPT[1], "rejected": {"from": "gpt", "value": "6"}}
    with pytest.raises(ValueError, match="it is a pair of preferences"):
        conversation(row, {})
    assert conversation(row, {"completion": "chosen"}).messages == TALK


def test_columns_are_mapped_also_those_of_messages():
    row = {"talk": [{"who": "USER", "says": "2+3"}, {"who": "model", "says": "5"}], "id": 1, "mood": "good"}
    talk = conversation(row, {"messages": "talk", "role": "who", "content": "says"})
    assert talk.messages == TALK
    assert talk.unread == ("mood",)
    assert conversation({"q": "2+3", "a": "5"}, {"prompt": "q", "completion": "a"}).messages == TALK
    pair = {"prompt": "2+3", "chosen": "5", "rejected": "6"}
    better = conversation(pair, {"completion": "chosen"})
    assert better.messages == TALK
    assert better.unread == ("rejected",)
    with pytest.raises(ConfigError, match="columns has no 'mesages'; its names are messages, "):
        check_columns({"mesages": "talk"})


def test_what_is_not_used_is_named():
    row = {
        "messages": [{**TALK[0], "mood": 1}, TALK[1]],
        "score": 3,
        "source": "us",
        "empty": None,
        "none": [],
    }
    assert conversation(row, {}).unread == ("score", "messages.mood")


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({}, "it has no messages, .* but none; name its columns"),
        (
            {"text": "a", "id": 1},
            "but text, id .plain texts are for `shoestring pretrain`.; name its columns with --set",
        ),
        ({"messages": "hi"}, "'messages' is not a list"),
        ({"messages": 5}, "'messages' is not a list"),
        ({"messages": [7]}, "message 0 is a int"),
        ({"messages": [{"role": "wizard", "content": ""}]}, "the role 'wizard'; known are system, "),
        ({"messages": [{"content": "x"}]}, "the role None"),
        ({"messages": TALK, "tools": [1]}, '"tools" is not a list of objects'),
        ({"messages": TALK, "tools": "nope"}, "'tools' is not a list"),
        ({"messages": [SYSTEM, *TALK], "system": "x"}, "a system message and a column of one"),
        ({"instruction": "a", "output": 5}, "'output' is a int, not text"),
        ({"instruction": "a", "output": "b", "history": [["a"]]}, '"history" is not a list of pairs'),
        ({"prompt": 5, "completion": "b"}, "'prompt' is a int, neither text nor messages"),
        ({"prompt": "a", "chosen": "b", "rejected": "c"}, "it is a pair of preferences"),
        (
            {"conversations": [{"from": "function_call", "value": "add(2)"}]},
            "a call of a function that is not",
        ),
    ],
)
def test_a_row_without_a_conversation_says_why(row, reason):
    with pytest.raises(ValueError, match=reason):
        conversation(row, {})
