"""Arithmetic with integers in several steps: `7*8-12+5=?`."""

import random
from collections.abc import Iterator
from dataclasses import dataclass

from shoestring.errors import ConfigError, DataError
from shoestring.tasks.answers import evaluate, split_reply
from shoestring.tasks.problems import split_of
from shoestring.tasks.task import Example, Split, Task
from shoestring.tasks.values.compute import digits
from shoestring.tasks.values.final_answer import final_number

TRIES = 20_000
"""Draws in a row without a new problem; after so many the split ends."""


@dataclass(frozen=True, kw_only=True)
class Arithmetic(Task):
    """Sums, differences and products with the usual precedence, in ASCII and without spaces."""

    steps: int = 3
    """Operations in a problem."""
    largest: int = 20
    """Operands are 1 to this number."""
    limit: int = 150
    """Results lie between -limit and limit."""

    is_pure = True

    def __post_init__(self) -> None:
        if not 1 <= self.steps <= 8:
            raise ConfigError(f"arithmetic: steps = {self.steps} is not between 1 and 8")
        if not 2 <= self.largest <= 10**6:
            raise ConfigError(f"arithmetic: largest = {self.largest} is not between 2 and a million")
        if self.limit < self.largest:
            raise ConfigError(f"arithmetic: limit = {self.limit} is below largest = {self.largest}")

    @property
    def name(self) -> str:
        return "arithmetic"

    def examples(self, split: Split, seed: int) -> Iterator[Example]:
        """Random problems; the test split holds each problem once and ends when no new ones are found.

        Raises DataError when the numbers are so small that a split has no problem.
        """
        rng = random.Random(f"arithmetic:{split}:{seed}")
        keys: set[str] = set()
        misses = 0
        while misses < TRIES:
            problem = self._draw(rng)
            value = evaluate(problem)
            misses += 1
            if value is None or abs(value) > self.limit or split_of(problem) != split or problem in keys:
                continue
            if split == "test":
                keys.add(problem)
            yield Example(key=problem, question=f"{problem}=?", answer=int(value))
            misses = 0
        if split == "train" or not keys:
            raise DataError(f"arithmetic has no {split} problems like these; raise steps, largest or limit")

    def reward(self, example: Example, text: str) -> float:
        """1.0 when the answer states the result."""
        return float(final_number(split_reply(text).answer) == example.answer)

    def vote(self, example: Example, text: str) -> str | None:
        """The number that the answer states."""
        number = final_number(split_reply(text).answer)
        return None if number is None else digits(number)

    def _draw(self, rng: random.Random) -> str:
        numbers = [str(rng.randint(1, self.largest)) for _ in range(self.steps + 1)]
        return numbers[0] + "".join(rng.choice("+-*") + number for number in numbers[1:])
