"""GSM8K: grade school word problems whose answer is a number (arXiv 2110.14168)."""

import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

from shoestring import durable
from shoestring.errors import DataError
from shoestring.tasks.answers import split_reply
from shoestring.tasks.custom.columns import read_problems
from shoestring.tasks.problems import in_order
from shoestring.tasks.task import Example, Split, Task
from shoestring.tasks.values.compute import digits
from shoestring.tasks.values.final_answer import final_number

# The authors' repository (MIT). The hub's `openai/gsm8k` holds the same rows, as parquet.
ORIGIN = "https://raw.githubusercontent.com/openai/grade-school-math/master/grade_school_math/data"
MAX_BYTES = 32 << 20
DOWNLOAD_TIMEOUT_S = 60.0


@dataclass(frozen=True, kw_only=True)
class Gsm8k(Task):
    """7,473 training and 1,319 test problems, or others of the same form."""

    path: str = ""
    """A folder with train.jsonl and test.jsonl, a file of rows, or a data set of the hub; empty: GSM8K."""

    is_pure = True

    @property
    def name(self) -> str:
        return "gsm8k"

    def examples(self, split: Split, seed: int) -> Iterator[Example]:
        """See Task. Raises DataError for files that cannot be downloaded or read."""
        source = self.path or str(_download_once())
        examples = read_problems(source, split, question_field="question", answer_field="answer")
        return in_order([_with_number(example) for example in examples], split, seed)

    def reward(self, example: Example, text: str) -> float:
        r"""1.0 when the answer's number (`\boxed{}`, `####`, or the last) equals the true one exactly."""
        return float(final_number(split_reply(text).answer) == Fraction(example.answer))

    def vote(self, example: Example, text: str) -> str | None:
        """The number that the answer states."""
        number = final_number(split_reply(text).answer)
        return None if number is None else digits(number)


def _with_number(example: Example) -> Example:
    number = final_number(example.answer)
    if number is None:
        raise DataError(f"the answer to {example.question[:60]!r} does not end in a number after ####")
    return replace(example, answer=str(number))


def _download_once() -> Path:
    """The cache folder with the two files, downloaded unless they are there."""
    folder = durable.cache_folder("gsm8k")
    for name in ("train.jsonl", "test.jsonl"):
        if not (folder / name).is_file():
            durable.write_atomic(folder / name, _download(f"{ORIGIN}/{name}"))
    return folder


def _download(url: str) -> bytes:
    try:
        with urllib.request.urlopen(url, timeout=DOWNLOAD_TIMEOUT_S) as reply:
            data: bytes = reply.read(MAX_BYTES + 1)
    except OSError as error:
        raise DataError(f"cannot download {url}: {error}; give the task a path instead") from None
    if len(data) > MAX_BYTES:
        raise DataError(f"{url} is larger than {MAX_BYTES} bytes; give the task a path instead")
    return data
