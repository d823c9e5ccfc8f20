"""Rewards for form: total, exact on their definitions, and not earned by near misses."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoestring.errors import ConfigError
from shoestring.tasks.rewards import format_reward, language_reward

pieces = st.sampled_from(["<think>", "</think>", "<answer>", "</answer>", "a", " ", "\n", "思"])


@pytest.mark.parametrize(
    ("text", "reward"),
    [
        ("<think>a</think>b", 1.0),
        ("\n<think>\na\n</think>\n<answer>b</answer>\n", 1.0),
        ("<think></think>b", 1.0),
        ("", 0.0),
        ("b", 0.0),
        ("a</think>b", 0.0),
        ("x<think>a</think>b", 0.0),
        ("<think>a</think>", 0.0),
        ("<think>a</think> \n", 0.0),
        ("<think>a</think><answer> </answer>", 0.0),
        ("<think>a", 0.0),
        ("<think>a<think>b</think>c", 0.0),
        ("<think>a</think>b</think>c", 0.0),
        ("<think>a</think><think>b</think>c", 0.0),
        ("<think>a</think>b<answer>c</answer>", 0.0),
        ("<think>a</think><answer>b</answer><answer>c</answer>", 0.0),
        ("<think>a<answer>5</answer></think>b", 0.0),
        ("<THINK>a</THINK>b", 0.0),
        ("＜think＞a＜/think＞b", 0.0),
    ],
)
def test_format(text, reward):
    assert format_reward(text) == reward


@given(st.lists(pieces, max_size=12).map("".join))
def test_a_rewarded_form_has_each_think_tag_once(text):
    assert format_reward(text) in (0.0, 1.0)
    if format_reward(text):
        assert (text.count("<think>"), text.count("</think>")) == (1, 1)
        assert text.count("<answer>") == text.count("</answer>") <= 1


@pytest.mark.parametrize(
    ("thinking", "english", "chinese"),
    [
        ("so it is naïve", 1.0, 0.0),
        ("所以", 0.0, 1.0),
        ("so 所以 yes", 0.5, 0.5),
        ("so привет 所以", 0.25, 0.5),
        ("3 + 4 = 7 !", 1.0, 1.0),
        ("x2 y_3", 1.0, 0.0),
    ],
)
def test_language_is_the_share_of_words(thinking, english, chinese):
    text = f"<think>{thinking}</think>答案 answer"
    assert language_reward(text, "en") == pytest.approx(english)
    assert language_reward(text, "zh") == pytest.approx(chinese)


def test_without_thinking_there_is_nothing_to_mix():
    assert language_reward("所以", "en") == 1.0


def test_an_unknown_language_is_refused():
    with pytest.raises(ConfigError, match="en, zh"):
        language_reward("", "tlh")


@given(st.text())
def test_total_and_within_bounds(text):
    for whole in (text, f"<think>{text}</think>a"):
        assert 0.0 <= language_reward(whole, "en") + language_reward(whole, "zh") <= 2.0
        assert format_reward(whole) in (0.0, 1.0)
