"""A task: examples, each with a question, and a reward for a reply to one."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, ClassVar, Literal, Protocol

from shoestring.tasks.answers import split_reply

Split = Literal["train", "test"]
DRAWS_PER_EXAMPLE = 20
"""Draws per example, on average, after which a task has no further ones: it may repeat without end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One problem; everything in it is JSON, so it can be sent to a process and stored in a file."""

    key: str
    """Identifies the problem within its task: equal problems have equal keys."""
    question: str
    """The user's message."""
    answer: Any
    """The data that the verifier needs; never shown to the model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """An example with the name of its task, as reinforcement, distillation and verifiers know it."""

    task: str
    """The name that the verifier has the task under."""
    example: Example

    @property
    def id(self) -> str:
        """Task and key: equal for equal problems."""
        return f"{self.task}/{self.example.key}"


class Task(Protocol):
    """A source of problems with a verifier; a task subclasses it and writes `name`, `examples`, `reward`.

    All methods are total: `reward` and `vote` take any text and never evaluate it.
    """

    is_pure: ClassVar[bool] = False
    """Whether `reward` always ends soon and runs no code of others: then it is called in this process.

    Every other task's reward runs in a child process that can be killed.
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
        """A number, 1 for a right reply and 0 for a wrong one; None when the verifier cannot say.

        `text` is the assistant's whole turn, `<think>...</think>` and then the answer. None is a fault of the
        verifier: it is counted and never scored.
        """
        ...

    def vote(self, example: Example, text: str) -> str | None:
        """The answer that a reply votes for in a majority (maj@k), or None; it never sees a reward.

        By default the answer's text. Tasks whose equal answers can be written in several ways give one form.
        """
        return " ".join(split_reply(text).answer.split()) or None

    def prepare(self) -> None:
        """Load what the first reward needs, so that it does not count as the first reply's time."""
        return


def distinct_examples(task: Task, split: Split, seed: int, count: int) -> list[Example]:
    """The first `count` examples of different keys; fewer where the split has no more."""
    examples: dict[str, Example] = {}
    for example in islice(task.examples(split, seed), DRAWS_PER_EXAMPLE * count):
        examples.setdefault(example.key, example)
        if len(examples) == count:
            break
    return list(examples.values())
