"""Sets of problems: read from jsonl, parted into train and test, put in an order."""

import hashlib
import json
import random
from collections.abc import Iterator
from pathlib import Path

from shoestring.errors import DataError
from shoestring.tasks.task import Example, Split

MAX_LINE_BYTES = 1 << 20
TEST_ONE_IN = 10
"""Share of a single file's problems, and of generated ones, that is held out."""


def key_of(question: str) -> str:
    """Names a question whatever its spacing: 16 hexadecimal digits of its SHA-256."""
    return hashlib.sha256(" ".join(question.split()).encode(errors="replace")).hexdigest()[:16]


def split_of(key: str, one_in: int = TEST_ONE_IN) -> Split:
    """Where a problem belongs; decided by its key alone, so that no seed moves it."""
    return "test" if int(hashlib.sha256(key.encode()).hexdigest()[:16], 16) % one_in == 0 else "train"


def in_order(examples: list[Example], split: Split, seed: int) -> Iterator[Example]:
    """Shuffled by `seed`; training problems come again and again, in another order each time."""
    rng = random.Random(f"{split}:{seed}")
    while examples:
        yield from rng.sample(examples, len(examples))
        if split == "test":
            return


def read_split(path: Path, split: Split, *, question_field: str, answer_field: str) -> list[Example]:
    """The problems of one split; each question once, and none of the test questions in train.

    A folder has train.jsonl and test.jsonl; one file is parted by the questions' hashes, one in ten to test.
    Raises DataError for a file that cannot be read, a line that is no problem, or an empty split.
    """
    if path.is_dir():
        test = _read(path / "test.jsonl", question_field, answer_field)
        train = {} if split == "test" else _read(path / "train.jsonl", question_field, answer_field)
        chosen = test if split == "test" else {key: e for key, e in train.items() if key not in test}
    else:
        everything = _read(path, question_field, answer_field)
        chosen = {key: e for key, e in everything.items() if split_of(key) == split}
    if not chosen:
        raise DataError(f"{path} has no problems for the {split} split")
    return list(chosen.values())


def _read(path: Path, question_field: str, answer_field: str) -> dict[str, Example]:
    examples: dict[str, Example] = {}
    try:
        with open(path, "rb") as file:
            number = 0
            while line := file.readline(MAX_LINE_BYTES + 1):
                number += 1
                if len(line) > MAX_LINE_BYTES:
                    raise DataError(f"{path}, line {number}: longer than {MAX_LINE_BYTES} bytes")
                if line.strip():
                    example = _example(line, f"{path}, line {number}", question_field, answer_field)
                    examples.setdefault(example.key, example)
    except OSError as error:
        raise DataError(f"cannot read the problems in {path}: {error.strerror}") from None
    return examples


def _example(line: bytes, where: str, question_field: str, answer_field: str) -> Example:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        raise DataError(f"{where} is not valid JSON") from None
    for field in (question_field, answer_field):
        if not isinstance(row, dict) or not isinstance(row.get(field), str) or not row[field].strip():
            raise DataError(f"{where} has no text under {field!r}")
    question = row[question_field]
    return Example(key=key_of(question), question=question, answer=row[answer_field])
