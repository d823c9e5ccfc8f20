"""What a task is: examples with a question, and a reward for a reply to one."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, Protocol

Split = Literal["train", "test"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One problem; everything in it is JSON, so it can be sent to a process and kept in a file."""

    key: str
    """Which problem it is within its task: equal problems have equal keys."""
    question: str
    """The user's message."""
    answer: Any
    """What the verifier needs; never shown to the model."""


class Task(Protocol):
    """A source of problems with a verifier.

    Both methods are total: `reward` takes any text and never evaluates it, and returns None when it cannot
    say (a fault of the verifier, counted and never scored), else a number, 1 for right and 0 for wrong.
    """

    @property
    def name(self) -> str: ...

    def examples(self, split: Split, seed: int) -> Iterator[Example]:
        """Problems in an order that `seed` decides.

        Training ones never end (a finite set starts anew in another order). Of the test split, no problem is
        ever among the training ones; it may end. Raises DataError for a data set that cannot be read.
        """
        ...

    def reward(self, example: Example, text: str) -> float | None:
        """How right a reply is: the assistant's whole turn, `<think>...</think>` and then the answer."""
        ...
