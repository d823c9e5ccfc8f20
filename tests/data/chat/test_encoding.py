"""Rows of any content: each is encoded, or refused with a sentence; nothing else happens."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoestring.data.forms.conversation import conversation
from shoestring.data.forms.marks import read_marks
from shoestring.data.forms.pairs import labelled_completion, preference_pair
from shoestring.data.forms.rendering import inline, render
from shoestring.errors import DataError, TokenizerError
from shoestring.tokenizer.chat.deepseek import DeepSeekTemplate
from shoestring.tokenizer.chat.template import pieces_text

TEXTS_TO_TRY = ["", "hi", " hi ", "<think>a</think>b", "<｜User｜>", "gpt", "[1]", "\ud800"]
WORDS = st.sampled_from(TEXTS_TO_TRY)
LEAVES = st.none() | st.booleans() | st.integers(-2, 3) | st.floats() | WORDS
KEYS = [
    "role",
    "from",
    "content",
    "value",
    "type",
    "text",
    "weight",
    "train",
    "train_detail",
    "begin_offset",
    "end_offset",
    "tool_calls",
    "function",
    "name",
    "arguments",
    "reasoning_content",
    "thinking",
]
COLUMNS = [
    "messages",
    "tools",
    "system",
    "prompt",
    "completion",
    "instruction",
    "output",
    "history",
    "chosen",
    "rejected",
    "label",
]


def nested(values: st.SearchStrategy) -> st.SearchStrategy:
    return st.lists(values, max_size=3) | st.dictionaries(st.sampled_from(KEYS), values, max_size=4)


VALUES = st.recursive(LEAVES, nested, max_leaves=8)
TRUTHS = st.sampled_from([True, False, 0, 1, None])
PART = st.fixed_dictionaries({"text": WORDS}, optional={"train": TRUTHS, "weight": TRUTHS})
TEXTS = WORDS | st.lists(PART.map(lambda part: {"type": "text", **part}), max_size=3)
MESSAGES = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "assistant", "system"]), "content": TEXTS},
    optional={
        "weight": TRUTHS,
        "train": TRUTHS,
        "reasoning_content": TEXTS,
        "tool_calls": st.just([{"function": {"name": "f", "arguments": {"a": "é"}}}]),
        "x": VALUES,
    },
)
MODES = st.tuples(st.sampled_from(["assistant", "last", "all"]), st.sampled_from(["template", "inline"]))


@given(st.dictionaries(st.sampled_from(COLUMNS), VALUES | st.lists(VALUES, max_size=3), max_size=4))
def test_no_row_does_more_than_be_refused(row):
    for read in (conversation, preference_pair, labelled_completion):
        with suppress(ValueError):
            read(row, {})


@given(st.lists(MESSAGES, min_size=1, max_size=4), MODES)
def test_the_pieces_are_the_templates_text_whatever_is_learned(messages, modes):
    learn, thinking = modes
    with suppress(DataError, TokenizerError, ValueError):
        talk = conversation({"messages": messages}, {})
        text = pieces_text(render(talk, DeepSeekTemplate(), learn=learn, thinking=thinking).pieces)
        plain = [read_marks(message, "m")[0] for message in talk.messages]
        if learn == "last":
            last = max((n for n, message in enumerate(plain) if message["role"] == "assistant"), default=-1)
            plain = plain[: last + 1]
        expected = [inline(message) for message in plain] if thinking == "inline" else plain
        assert text == pieces_text(DeepSeekTemplate().render(expected))


@pytest.mark.parametrize("learn", ["assistant", "last", "all"])
def test_a_conversation_without_the_assistant_is_a_sentence_or_learned_whole(learn):
    talk = conversation({"messages": [{"role": "user", "content": "", "reasoning_content": "hm"}]}, {})
    with pytest.raises((DataError, ValueError), match=r"no turn of the assistant|does not write the reason"):
        render(talk, DeepSeekTemplate(), learn=learn, thinking="template")
