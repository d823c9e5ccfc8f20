"""The filters: each drops what it names and nothing else."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoestring.distill.keep import FILTERS, KeepConfig, is_looping, rejection, select
from shoestring.errors import ConfigError

GOOD = "<think>two and two</think>4"


@pytest.mark.parametrize(
    ("text", "finish", "reward", "changes", "why"),
    [
        (GOOD, "stop", 1.0, {}, None),
        (GOOD, "", 1.0, {}, None),
        (GOOD, "length", 1.0, {}, "truncated"),
        (GOOD, "content_filter", 1.0, {}, "truncated"),
        (GOOD, "stop", None, {}, "unverified"),
        (GOOD, "stop", 0.0, {}, "wrong"),
        (GOOD, "stop", 0.5, {"reward": 0.5}, None),
        ("4", "stop", 1.0, {"thinking": True}, "format"),
        ("4", "stop", 1.0, {}, None),
        ("a</think>4", "stop", 1.0, {}, "format"),
        ("4", "stop", 1.0, {"thinking": False}, None),
        ("<think>a</think>b</think>4", "stop", 1.0, {}, "format"),
        ("<think>二加二</think>4", "stop", 1.0, {"language": "en"}, "language"),
        ("<think>二加二</think>4", "stop", 1.0, {"language": "zh"}, None),
        (GOOD, "stop", 1.0, {"max_characters": 10}, "long"),
        ("<think>" + "so we try " * 30 + "</think>4", "stop", 1.0, {}, "looping"),
        ("<think>" + "so we try " * 30 + "</think>4", "stop", 1.0, {"loop_characters": 0}, None),
    ],
)
def test_each_filter(text, finish, reward, changes, why):
    assert rejection(text, finish, reward, KeepConfig(**changes)) == why
    assert why is None or why in FILTERS


def test_loops_of_every_period_are_found_at_their_length_and_not_before():
    for period in (1, 2, 7, 50, 100):
        unit = "".join(chr(97 + (i * i + i // 26) % 26) if i else "#" for i in range(period))
        long = max(200, 4 * period)
        looped = (unit * (long // period + 1))[:long]
        assert is_looping(f"Start! {looped}.", 200)
        assert not is_looping(f"Start! {looped[1:-1]}.", 200)


def test_reasoning_about_numbers_is_no_loop():
    tries = " ".join(f"{a}*{b}={a * b} no," for a in range(12) for b in range(12))
    assert not is_looping(tries, 200)


def test_a_long_text_is_looked_through_quickly():
    text = "".join(f"{i * 7919 % 10007} " for i in range(40_000))
    began = time.perf_counter()
    assert not is_looping(text, 200)
    assert time.perf_counter() - began < 5


@given(st.text(), st.integers(1, 300))
def test_looking_for_loops_is_total(text, characters):
    assert is_looping(text, characters) in (True, False)


@given(st.lists(st.text(max_size=30), unique=True, max_size=8), st.sampled_from(["shortest", "diverse"]))
def test_the_chosen_are_few_different_and_the_shortest_is_among_them(texts, order):
    places = select(texts, KeepConfig(per_problem=3, order=order))
    assert len(places) == len(set(places)) == min(3, len(texts))
    if texts:
        assert len(texts[places[0]]) == min(map(len, texts))
    if order == "shortest":
        left = [len(texts[i]) for i in range(len(texts)) if i not in places]
        assert all(len(texts[place]) <= length for place in places for length in left)


def test_diverse_prefers_another_way():
    texts = [
        "first we add two and two",
        "first we add two and two!",
        "multiplication of primes gives it at once",
    ]
    assert select(texts, KeepConfig(per_problem=2)) == [0, 1]
    assert select(texts, KeepConfig(per_problem=2, order="diverse")) == [0, 2]


@pytest.mark.parametrize(
    "changes",
    [
        {"language": "fr"},
        {"per_problem": 0},
        {"order": "x"},
        {"language_share": 2.0},
        {"reward": float("nan")},
    ],
)
def test_settings_that_cannot_be_meant(changes):
    with pytest.raises(ConfigError, match=next(iter(changes))):
        KeepConfig(**changes)
