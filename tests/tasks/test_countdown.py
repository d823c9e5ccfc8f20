"""Countdown: every problem can be solved, and only a real solution is right."""

from itertools import islice, permutations, product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoestring.errors import ConfigError, DataError
from shoestring.tasks.answers import evaluate
from shoestring.tasks.countdown import Countdown, reachable
from shoestring.tasks.task import Example

EXAMPLE = Example(key="", question="", answer={"numbers": [5, 12, 9], "target": 51})


def solutions(numbers: list[int], target: int) -> list[str]:
    """All expressions of three numbers that make the target, by brute force."""
    forms = ("({}{}{}){}{}", "{}{}({}{}{})")
    found = []
    for order, ops, form in product(permutations(numbers), product("+-*", repeat=2), forms):
        text = form.format(order[0], ops[0], order[1], ops[1], order[2])
        if evaluate(text) == target:
            found.append(text)
    return found


def test_every_problem_has_a_solution_that_is_right() -> None:
    task = Countdown()
    for example in islice(task.examples("train", 0), 200):
        found = solutions(example.answer["numbers"], example.answer["target"])
        assert found, example
        assert all(task.reward(example, f"<think>x</think>{text}") == 1.0 for text in found)
        assert example.question == f"make {example.answer['target']} from " + ",".join(
            map(str, example.answer["numbers"])
        )


def test_the_splits_share_no_set_of_numbers_and_a_seed_decides_the_order() -> None:
    task = Countdown(largest=9)
    train, test = (
        {tuple(sorted(e.answer["numbers"])) for e in islice(task.examples(split, 0), 3000)}
        for split in ("train", "test")
    )
    assert train
    assert test
    assert not train & test
    first, again, other = (list(islice(task.examples("train", seed), 20)) for seed in (1, 1, 2))
    assert first == again != other


@pytest.mark.parametrize(
    ("answer", "reward"),
    [
        ("(12*5)-9", 1.0),
        ("12*5-9", 1.0),
        ("<answer>5*12-9</answer>", 1.0),
        ("12*5-9=51", 1.0),
        ("-(9-12*5)", 1.0),
        ("51", 0.0),
        ("12*5-9+0", 0.0),
        ("12*5-9*1", 0.0),
        ("(12+5)*3", 0.0),
        ("12*5-9+5-5", 0.0),
        ("12*5", 0.0),
        ("9+12*5", 0.0),
        ("１２*5-9", 0.0),
        ("__import__('os')", 0.0),
        ("", 0.0),
        ("12**5-9", 0.0),
    ],
)
def test_only_a_solution_is_right(answer: str, reward: float) -> None:
    assert Countdown().reward(EXAMPLE, f"<think>hm</think>{answer}") == reward


def test_a_hit_in_the_thinking_is_no_answer() -> None:
    assert Countdown().reward(EXAMPLE, "<think>(12*5)-9=51</think>") == 0.0
    assert Countdown().reward(EXAMPLE, "<think>(12*5)-9") == 0.0


@given(st.text())
def test_the_reward_is_total(text: str) -> None:
    assert Countdown().reward(EXAMPLE, text) in (0.0, 1.0)


def test_a_vote_is_the_value_right_or_wrong() -> None:
    task = Countdown()
    assert task.vote(EXAMPLE, "<think></think>12*5-9") == "51"
    assert task.vote(EXAMPLE, "<think></think>12+5-9") == "8"
    assert task.vote(EXAMPLE, "<think></think>12+5") is None


def test_what_can_be_reached() -> None:
    assert reachable((2, 3)) == {5, 1, 6}
    assert reachable((7,)) == {7}


@pytest.mark.parametrize("options", [{"numbers": 1}, {"largest": 1}, {"limit": 0}, {"numbers": 6}])
def test_wrong_options_are_named(options: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        Countdown(**options)


def test_too_few_problems_for_a_split_are_said() -> None:
    with pytest.raises(DataError, match="raise largest or limit"):
        list(islice(Countdown(numbers=2, largest=2, limit=1).examples("test", 0), 5))
