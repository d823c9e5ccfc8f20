"""GSM8K: grade school word problems with a number for an answer (arXiv 2110.14168)."""

import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

from shoestring import durable
from shoestring.errors import DataError
from shoestring.tasks import problems
from shoestring.tasks.answers import final_number, split_reply
from shoestring.tasks.task import Example, Split, Task

# The authors' repository (MIT). The hub's `openai/gsm8k` holds the same rows, as parquet.
ORIGIN = "https://raw.githubusercontent.com/openai/grade-school-math/master/grade_school_math/data"
MAX_BYTES = 32 << 20
FETCH_TIMEOUT_S = 60.0


@dataclass(frozen=True, kw_only=True)
class Gsm8k(Task):
    """7,473 training and 1,319 test problems, or others of the same form."""

    path: str = ""
    """A folder with train.jsonl and test.jsonl, or one jsonl file; empty: fetched once and kept."""

    is_pure = True

    @property
    def name(self) -> str:
        return "gsm8k"

    def examples(self, split: Split, seed: int) -> Iterator[Example]:
        """See Task. Raises DataError for files that cannot be fetched or read."""
        folder = Path(self.path).expanduser() if self.path else _fetched()
        found = problems.read_split(folder, split, question_field="question", answer_field="answer")
        return problems.in_order([_with_number(example) for example in found], split, seed)

    def reward(self, example: Example, text: str) -> float:
        r"""1.0 when the answer's number (`\boxed{}`, `####`, or the last) equals the true one exactly."""
        return float(final_number(split_reply(text).answer) == Fraction(example.answer))

    def vote(self, example: Example, text: str) -> str | None:
        """The number that the reply answers, which a majority can agree on."""
        number = final_number(split_reply(text).answer)
        return None if number is None else str(number)


def _with_number(example: Example) -> Example:
    number = final_number(example.answer)
    if number is None:
        raise DataError(f"the answer to {example.question[:60]!r} does not end in a number after ####")
    return replace(example, answer=str(number))


def _fetched() -> Path:
    """The folder of the two files, fetched when they are not there yet."""
    folder = durable.cache_folder("gsm8k")
    for name in ("train.jsonl", "test.jsonl"):
        if not (folder / name).is_file():
            durable.write_atomic(folder / name, _download(f"{ORIGIN}/{name}"))
    return folder


def _download(url: str) -> bytes:
    try:
        with urllib.request.urlopen(url, timeout=FETCH_TIMEOUT_S) as reply:
            data: bytes = reply.read(MAX_BYTES + 1)
    except OSError as error:
        raise DataError(f"cannot fetch {url}: {error}; give the task a path instead") from None
    if len(data) > MAX_BYTES:
        raise DataError(f"{url} is larger than {MAX_BYTES} bytes; give the task a path instead")
    return data
