"""Arithmetic problems are right, compact, repeatable, and never in both splits."""

from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoestring.errors import ConfigError, DataError
from shoestring.tasks import arithmetic
from shoestring.tasks.arithmetic import Arithmetic
from shoestring.tasks.task import Example

TASK = Arithmetic()


def test_problems_are_right_and_within_limits():
    for example in islice(TASK.examples("train", 0), 200):
        problem = example.question.removesuffix("=?")
        assert example.question.isascii()
        assert example.question == example.key + "=?"
        assert sum(problem.count(operator) for operator in "+-*") == 3
        assert example.answer == eval(problem)  # noqa: S307  our own digits and operators
        assert abs(example.answer) <= 150


def test_a_seed_gives_the_same_problems_again_and_another_gives_others():
    first = list(islice(TASK.examples("train", 1), 50))
    assert first == list(islice(TASK.examples("train", 1), 50))
    assert first != list(islice(TASK.examples("train", 2), 50))


@pytest.mark.parametrize("seeds", [(0, 0), (1, 2)])
def test_no_test_problem_is_a_training_problem(seeds, monkeypatch):
    monkeypatch.setattr(arithmetic, "TRIES", 3000)
    small = Arithmetic(steps=1, largest=9, limit=9)
    train = {e.key for e in islice(small.examples("train", seeds[0]), 3000)}
    test = [e.key for e in small.examples("test", seeds[1])]  # it ends
    assert test
    assert len(set(test)) == len(test)
    assert not train & set(test)


def test_reward_is_for_the_number_of_the_answer():
    example = Example(key="2*3-7", question="2*3-7=?", answer=-1)
    for right in ("-1", "<think>5</think>2*3-7=-1", "<think>x</think>\\boxed{-1}", "−1", "-1.0"):
        assert TASK.reward(example, right) == 1.0
    for wrong in (
        "1",
        "<think>-1</think>",
        "<think>-1",
        "-1 or 1",
        "2*3-7",
        "",
        "<think>-1</think>1",
    ):
        assert TASK.reward(example, wrong) == 0.0
    assert (TASK.vote(example, "= -1"), TASK.vote(example, "no")) == ("-1", None)


@given(st.text())
def test_reward_is_total(text):
    example = Example(key="1+1", question="1+1=?", answer=2)
    assert TASK.reward(example, text) in (0.0, 1.0)


@pytest.mark.parametrize(
    ("options", "field"),
    [({"steps": 0}, "steps"), ({"steps": 9}, "steps"), ({"largest": 1}, "largest"), ({"limit": 5}, "limit")],
)
def test_wrong_options_are_named(options, field):
    with pytest.raises(ConfigError, match=field):
        Arithmetic(**options)


@pytest.mark.parametrize("split", ["train", "test"])
def test_too_few_problems_are_an_error_and_not_an_endless_search(split, monkeypatch):
    monkeypatch.setattr(arithmetic, "TRIES", 100)
    monkeypatch.setattr(arithmetic, "split_of", lambda problem: "neither")
    with pytest.raises(DataError, match=f"no {split} problems"):
        next(TASK.examples(split, 0))
