"""Mathematics with LaTeX answers, compared by math-verify: equal values count, not equal texts."""

import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from shoestring.errors import ConfigError, MissingDependencyError
from shoestring.tasks import problems
from shoestring.tasks.answers import boxed, split_reply
from shoestring.tasks.guard import only_arithmetic
from shoestring.tasks.task import Example, Split, Task

READ_CHARS = 4096
"""The end of an answer, where its result is; longer texts make the library's patterns slow."""


@dataclass(frozen=True, kw_only=True)
class Math(Task):
    """Problems in jsonl files, such as MATH or competition papers."""

    path: str
    """A folder with train.jsonl and test.jsonl, or one jsonl file."""
    question_field: str = "problem"
    answer_field: str = "answer"
    r"""A LaTeX answer, or a worked solution with the answer in `\boxed{}`."""

    def __post_init__(self) -> None:
        if not self.path:
            raise ConfigError("math: path is empty; name a jsonl file or a folder of train and test.jsonl")
        if importlib.util.find_spec("math_verify") is None:
            raise MissingDependencyError(
                "the math task needs math-verify: pip install math-verify (extra 'rl')"
            )

    @property
    def name(self) -> str:
        return "math"

    def examples(self, split: Split, seed: int) -> Iterator[Example]:
        """See Task. Raises DataError for files that cannot be read."""
        examples = problems.read_split(
            Path(self.path).expanduser(),
            split,
            question_field=self.question_field,
            answer_field=self.answer_field,
        )
        return problems.in_order(examples, split, seed)

    def prepare(self) -> None:
        """Load the library, which takes most of a second."""
        import math_verify  # noqa: F401

    def reward(self, example: Example, text: str) -> float | None:
        """1.0 when the two answers are equal; None when the true one cannot be read.

        SymPy may take forever, so the task is not pure.
        """
        from math_verify import parse, verify

        gold = example.answer if boxed(example.answer) is not None else rf"\boxed{{{example.answer}}}"
        answer = split_reply(text).answer[-READ_CHARS:]
        # Without their timeouts, which need signals and count as a wrong answer: our clock is outside.
        with only_arithmetic():
            true = parse(gold, parsing_timeout=None)
            value = parse(answer, parsing_timeout=None)
            if not true:
                return None
            return float(verify(true, value, timeout_seconds=None))
