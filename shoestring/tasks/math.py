r"""Mathematics with LaTeX answers: equal values count, not equal texts.

`values` reads and compares what it knows, by value however small; math-verify decides on the rest, such as
integrals and sums. LaTeX that is broken is no value: in the true answer that is a fault of the data, and the
verdict is None; in a reply it is a wrong answer, since a model must not learn to get out of a verdict by it.
"""

import importlib.util
import re
from collections.abc import Iterator
from dataclasses import dataclass

from shoestring.errors import ConfigError, MissingDependencyError
from shoestring.tasks.answers import split_reply
from shoestring.tasks.custom.columns import read_problems
from shoestring.tasks.guard import only_arithmetic
from shoestring.tasks.problems import in_order
from shoestring.tasks.task import Example, Split, Task
from shoestring.tasks.values.compare import same
from shoestring.tasks.values.final_answer import boxes, candidates, last_boxes, mark
from shoestring.tasks.values.form import is_value, plain, readings, vote
from shoestring.tasks.values.tokens import MAX_CHARS, BrokenLatex, Unread
from shoestring.tasks.values.tree import Node

CALCULUS = re.compile(r"\\(?:i+nt|oint|sum|prod|lim|det|begin\{[vV]matrix\}|operatorname)(?![A-Za-z])")
"""The mathematics that is left to math-verify."""
DOTS = re.compile(r"\\[lcd]?dots(?![A-Za-z])|\.\.\.")
"""Parts that math-verify leaves out, so that `1, 2, \\ldots, n` would be 1, 2, n."""


@dataclass(frozen=True, kw_only=True)
class Math(Task):
    """Problems of a data set, such as MATH or competition papers."""

    path: str
    """A folder with train.jsonl and test.jsonl, a file of rows, or a data set of the hub."""
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
        fields = {"question_field": self.question_field, "answer_field": self.answer_field}
        return in_order(read_problems(self.path, split, **fields), split, seed)

    def prepare(self) -> None:
        """Load the library, which takes most of a second."""
        import math_verify  # noqa: F401

    def reward(self, example: Example, text: str) -> float | None:
        """1.0 when the two answers are equal; None when the true one cannot be read.

        SymPy may take forever, so the task is not pure.
        """
        right = mark(example.answer)
        right = example.answer if right is None else ", ".join(last_boxes(example.answer)) or right
        try:
            trees, words = readings(right), plain(right)
        except BrokenLatex:
            return None
        if words is None and not trees:
            return None
        answer = split_reply(text).answer
        contents = [final_answer(answer)]
        if any(tree.kind in ("list", "set") for tree in trees):  # "the roots are \boxed{2} and \boxed{3}"
            contents.append(", ".join(last_boxes(answer)))
            if len(every := boxes(answer)) == len(trees[0].parts):
                contents.append(", ".join(every))
        return float(any(content and _is_right(right, trees, words, content) for content in contents))

    def vote(self, example: Example, text: str) -> str | None:
        """The answer's canonical form: equal values have one vote, as `0.5` and `\\frac12`."""
        content = final_answer(split_reply(text).answer)
        return vote(content) if content else None


def final_answer(answer: str) -> str | None:
    """The answer that a reply gives: in its last box, else the first of what it says last that is a value."""
    content = mark(answer)
    if content is not None:
        return content
    texts = candidates(answer)
    return next((text for text in texts if is_value(text)), texts[0] if texts else None)


def _is_right(right: str, trees: list[Node], words: str | None, content: str) -> bool:
    try:
        if words is not None and plain(content) == words:
            return True
        others = readings(content, is_reply=True)
    except BrokenLatex:
        return False
    if trees and others:
        return any(_same(tree, other) for tree in trees for other in others)
    if any(len(text) > MAX_CHARS or DOTS.search(text) for text in (right, content)):
        return False
    return bool(CALCULUS.search(f"{right} {content}")) and _library_agrees(right, content)


def _same(tree: Node, other: Node) -> bool:
    try:
        return same(tree, other)
    except (Unread, RecursionError):  # too large for a value
        return False


def _library_agrees(right: str, content: str) -> bool:
    """Return whether math-verify reads both and finds them equal."""
    from math_verify import LatexExtractionConfig, parse, verify

    # Without its timeouts, which need signals and count as a wrong answer: our clock is outside. Without its
    # fallbacks, which compare a number from within a formula that it cannot read.
    with only_arithmetic():
        true, value = (
            parse(
                rf"\boxed{{{text}}}",
                [LatexExtractionConfig()],
                fallback_mode="no_fallback",
                parsing_timeout=None,
            )
            for text in (right, content)
        )
        true, value = ([part.doit() for part in parts] for parts in (true, value))
        return bool(true and verify(true, value, float_rounding=12, timeout_seconds=None))
