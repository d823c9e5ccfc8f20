"""Answers that the filters drop are said, with the setting that keeps them."""

from pathlib import Path

from shoestring.distill.conversations import WAYS_TO_KEEP, Collection, dropped_sentence
from shoestring.distill.keep import FILTERS


def sentence(num_answers, **rejections):
    collection = Collection(
        path=Path("x"), teacher="t", num_problems=1, num_solved=1, num_answers=num_answers,
        num_conversations=1, rejections=dict.fromkeys(FILTERS, 0) | rejections, faults={},
    )  # fmt: skip
    return dropped_sentence(collection, max_tokens=100, num_generations=4)


def test_more_than_a_tenth_is_a_sentence_with_the_settings():
    assert sentence(80, wrong=30, truncated=12) == (
        "42 of 80 answers (52%) are not learned: 12 truncated (--set collect.max_tokens=200 lets them be "
        "longer), 30 wrong"
    )
    assert "--set collect.keep.per_problem=4" in sentence(80, surplus=20)


def test_a_tenth_and_less_is_nothing():
    assert sentence(80, wrong=8) == ""
    assert sentence(3, wrong=1) == ""


def test_every_setting_is_one_of_a_filter():
    assert set(WAYS_TO_KEEP) == set(FILTERS) - {"wrong", "unverified"}
