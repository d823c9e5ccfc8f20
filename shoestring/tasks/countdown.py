"""Countdown: reach a target from a few numbers with + - *, each number used exactly once."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

from shoestring.errors import ConfigError, DataError
from shoestring.tasks.answers import evaluate, numbers_in, split_reply
from shoestring.tasks.problems import split_of
from shoestring.tasks.task import Example, Split, Task

TRIES = 20_000
"""Draws in a row without a problem; after so many the split has none."""


class Step(NamedTuple):
    """One operation on two numbers: `a op b = value`."""

    a: int
    op: str
    b: int
    value: int


@dataclass(frozen=True, kw_only=True)
class Countdown(Task):
    """`make 51 from 5,12,9`; a right answer is an expression such as (12*5)-9. Every problem has one."""

    numbers: int = 3
    largest: int = 20
    """Numbers are 1 to this number."""
    limit: int = 100
    """Targets are 1 to this number."""

    is_pure = True

    def __post_init__(self) -> None:
        if not 2 <= self.numbers <= 5:
            raise ConfigError(f"countdown: numbers = {self.numbers} is not between 2 and 5")
        if not 2 <= self.largest <= 1000:
            raise ConfigError(f"countdown: largest = {self.largest} is not between 2 and 1000")
        if self.limit < 1:
            raise ConfigError(f"countdown: limit = {self.limit} must be at least 1")

    @property
    def name(self) -> str:
        return "countdown"

    def examples(self, split: Split, seed: int) -> Iterator[Example]:
        """Random problems without end; the two splits share no set of numbers.

        Raises DataError when numbers and targets are so small that a split has no problem.
        """
        rng = random.Random(f"countdown:{split}:{seed}")
        misses = 0
        while misses < TRIES:
            numbers = tuple(rng.randint(1, self.largest) for _ in range(self.numbers))
            values = sorted(v for v in reachable(numbers) if 1 <= v <= self.limit)
            misses += 1
            if not values or split_of(",".join(map(str, sorted(numbers)))) != split:
                continue
            target = rng.choice(values)
            numbers_text = ",".join(map(str, numbers))
            yield Example(
                key=f"{numbers_text}={target}",
                question=f"make {target} from {numbers_text}",
                answer={"numbers": list(numbers), "target": target},
            )
            misses = 0
        raise DataError(f"countdown has no {split} problems like these; raise largest or limit")

    def reward(self, example: Example, text: str) -> float:
        """1.0 when the answer uses each number exactly once and its value is the target."""
        return float(self.vote(example, text) == str(example.answer["target"]))

    def vote(self, example: Example, text: str) -> str | None:
        """The value of the answer's expression, if it uses the right numbers."""
        answer = split_reply(text).answer.partition("=")[0]
        if sorted(numbers_in(answer)) != sorted(example.answer["numbers"]):
            return None
        value = evaluate(answer)
        return None if value is None else str(value)


def steps(a: int, b: int) -> list[Step]:
    """The sum of two numbers, their difference (never negative) and their product."""
    high, low = max(a, b), min(a, b)
    return [Step(a, "+", b, a + b), Step(high, "-", low, high - low), Step(a, "*", b, a * b)]


def reachable(numbers: tuple[int, ...]) -> set[int]:
    """Every value of an expression with all the numbers and no negative number on the way."""
    if len(numbers) == 1:
        return set(numbers)
    values: set[int] = set()
    for i, j in combinations(range(len(numbers)), 2):
        rest = tuple(n for k, n in enumerate(numbers) if k not in (i, j))
        for step in steps(numbers[i], numbers[j]):
            values |= reachable((*rest, step.value))
    return values
