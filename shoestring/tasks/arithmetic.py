"""Integer arithmetic in several steps: `7*8-12+5=?`."""

import random
from collections.abc import Iterator
from dataclasses import dataclass

from shoestring.errors import ConfigError, DataError
from shoestring.tasks.answers import evaluate, final_number, split_reply
from shoestring.tasks.problems import split_of
from shoestring.tasks.task import Example, Split, Task

TRIES = 20_000
"""Draws in a row without a new problem, after which there are none left."""


@dataclass(frozen=True, kw_only=True)
class Arithmetic(Task):
    """Sums, differences and products with the usual precedence, in ASCII and without spaces."""

    steps: int = 3
    """Operations in a problem."""
    largest: int = 20
    """Operands are 1 to this."""
    limit: int = 150
    """Results lie between minus this and this."""

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
        """Drawn at random; the test split has each problem once and ends when no new ones are found.

        Raises DataError when numbers this small leave a split without problems.
        """
        rng = random.Random(f"arithmetic:{split}:{seed}")
        seen: set[str] = set()
        misses = 0
        while misses < TRIES:
            problem = self._draw(rng)
            value = evaluate(problem)
            misses += 1
            if value is None or abs(value) > self.limit or split_of(problem) != split or problem in seen:
                continue
            if split == "test":
                seen.add(problem)
            yield Example(key=problem, question=f"{problem}=?", answer=int(value))
            misses = 0
        if split == "train" or not seen:
            raise DataError(f"arithmetic has no {split} problems like these; raise steps, largest or limit")

    def reward(self, example: Example, text: str) -> float:
        """1.0 when the answer's number is the result."""
        return float(final_number(split_reply(text).answer) == example.answer)

    def vote(self, example: Example, text: str) -> str | None:
        """The number that the reply answers, which a majority can agree on."""
        number = final_number(split_reply(text).answer)
        return None if number is None else str(number)

    def _draw(self, rng: random.Random) -> str:
        numbers = [str(rng.randint(1, self.largest)) for _ in range(self.steps + 1)]
        return numbers[0] + "".join(rng.choice("+-*") + number for number in numbers[1:])
