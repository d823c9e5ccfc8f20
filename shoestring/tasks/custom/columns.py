"""Examples from a data set with columns: one column is the prompt, all others are for the rewards."""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from shoestring.errors import DataError
from shoestring.rows.read import Row, read_rows
from shoestring.rows.source import DataFile, data_files, find
from shoestring.tasks.problems import read_split, split_of
from shoestring.tasks.task import Example, Split

log = logging.getLogger(__name__)

PROMPT = "prompt"
PROMPT_NAMES = (PROMPT, "question", "problem", "query", "instruction", "input", "messages")
"""Columns that hold the prompt where none is called `prompt`, the first that is there."""
MAX_BAD_SHARE = 0.1
"""Share of rows that cannot be used, above which a warning says so."""


def read_examples(data: str, test_data: str, split: Split, columns: Mapping[str, str]) -> list[Example]:
    """The examples of one split, each prompt once, with the other columns as their answer.

    `columns` has other names for columns: {"solution": "answer"} makes `solution` of the column `answer`.
    The test split is `test_data`, else the files of `data` that are for tests, else one in ten of its
    prompts. Rows that cannot be used are left out, and a warning counts them when they are over a tenth.
    Raises DataError for a source without any row to use, and for a column that no row has.
    """
    test_files = data_files(test_data, split="test") if test_data else _test_files(data)
    test = _examples(test_files, columns)
    if split == "test" and test_files:
        examples = test
    elif test_files:
        examples = {k: e for k, e in _examples(data_files(data), columns).items() if k not in test}
    else:
        every = _examples(data_files(data), columns)
        examples = {key: example for key, example in every.items() if split_of(key) == split}
    if not examples:
        raise DataError(f"{data} has no problem for the {split} split; name a file as options.test_data")
    return list(examples.values())


def read_problems(data: str, split: Split, *, question_field: str, answer_field: str) -> list[Example]:
    """The problems of one split, with one column as their answer.

    `data` is a jsonl file, a folder with train.jsonl and test.jsonl, or a source as `read_examples` takes.
    Raises DataError as `read_split` and `read_examples`, and for a row without an answer.
    """
    path = Path(data).expanduser()
    if path.suffix == ".jsonl" or any((path / f"{name}.jsonl").is_file() for name in ("train", "test")):
        return read_split(path, split, question_field=question_field, answer_field=answer_field)
    problems = []
    for example in read_examples(data, "", split, {PROMPT: question_field}):
        answer = example.answer.get(answer_field)
        if not isinstance(answer, (str, int, float)) or isinstance(answer, bool) or not str(answer).strip():
            raise DataError(f"{data}: {example.question[:60]!r} has no text under {answer_field!r}")
        problems.append(replace(example, answer=str(answer)))
    return problems


def _test_files(data: str) -> list[DataFile]:
    """The files of a source with several splits that are for tests."""
    files, part = find(data)
    return data_files(data, split="test") if not part and any(f.split == "test" for f in files) else []


def _examples(files: Sequence[DataFile], columns: Mapping[str, str]) -> dict[str, Example]:
    examples: dict[str, Example] = {}
    num_rows, problems = 0, list[str]()
    for file in files:
        for row in read_rows(file.path, name=file.label):
            num_rows += 1
            example = _example(row, columns)
            if isinstance(example, str):
                problems.append(f"{row.place}: {example}")
            else:
                examples.setdefault(example.key, example)
    if problems and not examples:
        raise DataError(problems[0])
    if len(problems) > MAX_BAD_SHARE * num_rows:
        log.warning("%d of %d rows are left out; the first is %s", len(problems), num_rows, problems[0])
    return examples


def _example(row: Row, columns: Mapping[str, str]) -> Example | str:
    """The example of a row, or the reason why it is none."""
    if row.problem:
        return row.problem
    values = dict(row.values)
    for name, column in columns.items():
        if column not in values:
            return f"there is no column {column!r} for columns.{name}; it has {', '.join(values)}"
        values[name] = values[column]
    prompt = next((name for name in PROMPT_NAMES if name in values), None)
    if prompt is None:
        return (
            f"no column is the prompt; it has {', '.join(values)}, "
            "name one by options.columns.prompt, such as --set options.columns.prompt=text"
        )
    messages = _messages(values[prompt])
    question = values[prompt] if messages is None else messages[-1]["content"] if messages else None
    if not isinstance(question, str) or not question.strip():
        return f"the column {prompt} holds neither text nor messages that end in a question"
    values.pop(PROMPT, None)
    return Example(question=question, answer=_as_json(values), messages=messages or ())


def _messages(value: Any) -> list[dict[str, Any]] | None:
    """The messages of a conversation without the answer at its end; None for what is none."""
    if not isinstance(value, list) or not all(isinstance(m, dict) and "role" in m for m in value):
        return None
    last = max((i for i, message in enumerate(value) if message["role"] == "user"), default=-1)
    return [{k: v for k, v in message.items() if v is not None} for message in value[: last + 1]]


def _as_json(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values as JSON has them; dates and the like become text."""
    data: dict[str, Any] = json.loads(json.dumps(values, default=str))
    return data
