"""Replies and refusals read: the forms servers have, and anything at all."""

import json
import time
from email.utils import formatdate

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shoestring.remote.wire import (
    LONGEST_WAIT_S,
    Refusal,
    backoff_s,
    read_completion,
    read_refusal,
    retry_after_s,
    whole_turn,
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.text() | st.sampled_from(["message", "content"]), inner)
    ),
)


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ({"content": "4", "reasoning_content": "2+2"}, "<think>2+2</think>4"),  # DeepSeek, SGLang, llama.cpp
        ({"content": "4", "reasoning": "2+2"}, "<think>2+2</think>4"),  # vLLM from 0.19 on
        ({"content": "4", "reasoning_content": None, "reasoning": None}, "4"),
        ({"content": " \n<think>2+2</think>4"}, "<think>2+2</think>4"),
        ({"content": "2+2</think>4"}, "<think>2+2</think>4"),  # the prompt held the opening
        ({"content": None}, ""),
        (
            {"content": [{"type": "text", "text": "a"}, {"type": "image"}, {"type": "text", "text": "b"}]},
            "ab",
        ),
        ({"content": "\ud800x"}, "?x"),
    ],
)
def test_the_forms_of_a_message(message, text):
    body = json.dumps({"choices": [{"message": message, "finish_reason": "length"}]}).encode()
    [choice] = read_completion(b"\n\n" + body, 1).choices
    assert (choice.text, choice.finish_reason) == (text, "length")


@pytest.mark.parametrize("count", [True, -1, 1.0, "7", None, 10**30])
def test_counts_that_cannot_be_are_unknown(count):
    body = {
        "choices": [{"message": {"content": "x"}}],
        "usage": {"prompt_tokens": count, "completion_tokens": 3},
    }
    read = read_completion(json.dumps(body).encode(), 1)
    assert (read.prompt_tokens, read.completion_tokens) == (None, 3)


def test_more_answers_than_asked_for_are_left():
    body = {"choices": [{"message": {"content": str(i)}} for i in range(5)]}
    assert [c.text for c in read_completion(json.dumps(body).encode(), 2).choices] == ["0", "1"]


@settings(max_examples=50)
@given(st.binary() | JSON.map(lambda x: json.dumps({"choices": x, "usage": x}).encode()))
def test_reading_is_total(body):
    got = None
    try:
        got = read_completion(body, 3)
    except Refusal as refusal:
        got = refusal
    if isinstance(got, Refusal):
        assert got.action == "retry"
        assert got.may_cost
        assert str(got).isprintable()
    else:
        assert 1 <= len(got.choices) <= 3
        "".join(choice.text for choice in got.choices).encode()


@given(st.integers(100, 999), st.dictionaries(st.sampled_from(["retry-after"]), st.text()), st.binary())
def test_refusals_are_total(status, headers, body):
    refusal = read_refusal(status, headers, body)
    assert refusal.action in ("retry", "skip", "stop")
    assert 0 <= refusal.wait_s <= LONGEST_WAIT_S
    assert len(str(refusal)) < 400


def test_retry_after_in_its_forms():
    assert retry_after_s({"retry-after": "7"}) == 7
    assert retry_after_s({"retry-after": "1e99"}) == LONGEST_WAIT_S
    assert retry_after_s({"retry-after-ms": "250", "retry-after": "7"}) == 0.25
    date = formatdate(time.time() + 60, usegmt=True)
    assert 50 < retry_after_s({"retry-after": date}) <= 60
    assert [retry_after_s({"retry-after": x}) for x in ("soon", "-3", "nan", "inf", "")] == [0] * 5


def test_backoff_doubles_with_jitter_and_never_undercuts_the_server():
    assert [backoff_s(n, 0, 1.0) for n in range(4)] == [1, 2, 4, 8]
    assert backoff_s(3, 0, 0.0) == 4
    assert backoff_s(99, 0, 1.0) == 60
    assert all(backoff_s(0, 9.0, jitter) >= 9.0 for jitter in (0.0, 0.5, 1.0))


@given(st.text(), st.text())
def test_a_turn_with_reasoning_is_one_think_block_in_front(content, reasoning):
    turn = whole_turn(content, reasoning)
    assert turn.endswith(content.lstrip())
    if reasoning:
        assert turn == f"<think>{reasoning}</think>{content}"
