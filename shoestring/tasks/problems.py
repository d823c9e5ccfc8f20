"""Sets of problems: read from jsonl, split into train and test, shuffled by a seed."""

import hashlib
import json
import random
from collections.abc import Iterator
from pathlib import Path

from shoestring.errors import DataError
from shoestring.tasks.task import Example, Split, key_of

MAX_LINE_BYTES = 1 << 20
TEST_ONE_IN = 10
"""One in so many of a single file's problems, and of generated ones, is in the test split."""


def split_of(key: str, one_in: int = TEST_ONE_IN) -> Split:
    """The split of a problem, decided by its key alone: the same under every seed."""
    return "test" if int(hashlib.sha256(key.encode()).hexdigest()[:16], 16) % one_in == 0 else "train"


def in_order(examples: list[Example], split: Split, seed: int) -> Iterator[Example]:
    """Examples shuffled by `seed`; training ones repeat without end, in another order each time."""
    rng = random.Random(f"{split}:{seed}")
    while examples:
        yield from rng.sample(examples, len(examples))
        if split == "test":
            return


def read_split(path: Path, split: Split, *, question_field: str, answer_field: str) -> list[Example]:
    """The problems of one split: each question once, and no test question in train.

    A folder has train.jsonl and test.jsonl; one file is split by the questions' hashes, one in ten to test.
    Raises DataError for a file that cannot be read, a line that is no problem, or an empty split.
    """
    if path.is_dir():
        test = _read(path / "test.jsonl", question_field, answer_field)
        train = {} if split == "test" else _read(path / "train.jsonl", question_field, answer_field)
        examples = test if split == "test" else {key: e for key, e in train.items() if key not in test}
    else:
        all_examples = _read(path, question_field, answer_field)
        examples = {key: e for key, e in all_examples.items() if split_of(key) == split}
    if not examples:
        raise DataError(f"{path} has no problems for the {split} split")
    return list(examples.values())


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
    if isinstance(row, dict) and type(row.get(answer_field)) in (int, float):
        row[answer_field] = str(row[answer_field])
    for field in (question_field, answer_field):
        if not isinstance(row, dict) or not isinstance(row.get(field), str) or not row[field].strip():
            raise DataError(f"{where} has no text under {field!r}")
    question = row[question_field]
    return Example(key=key_of(question), question=question, answer=row[answer_field])
