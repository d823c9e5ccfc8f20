"""Multiple-choice questions, in the forms of MMLU, MMLU-Pro, GPQA and ARC (arXiv 2009.03300, 2311.12022)."""

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from shoestring.errors import ConfigError, DataError
from shoestring.tasks.answers import split_reply
from shoestring.tasks.custom.columns import read_examples
from shoestring.tasks.problems import in_order
from shoestring.tasks.task import Example, Split, Task
from shoestring.tasks.values.choice import LETTERS, choice_of

ASK = "Think about it, and end with the letter of the right choice, as in: Answer: {letter}"
# Columns of the question, of the choices (one with a list, or one each) and of the answer. Without a column
# for the answer the first choice is right.
FORMS = (
    ("question", ("choices",), "answer"),
    ("question", ("options",), "answer"),
    ("question", ("A", "B", "C", "D"), "answer"),
    ("question", ("choices",), "answerKey"),
    ("Question", ("Correct Answer", "Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3"), ""),
)


@dataclass(frozen=True, kw_only=True)
class MultipleChoice(Task):
    """Questions of a data set with columns for the question, the choices and the answer."""

    data: str = ""
    """A file, folder, pattern or data set of the hub: jsonl, JSON, csv, parquet, also .gz and .zst."""
    test_data: str = ""
    """The same for the test split; empty: files of `data` that are called test, or one in ten questions.

    Alone, without `data`, all of it is for the test, as of a benchmark.
    """
    question: str = ""
    """The column of the question; empty: the columns of MMLU, MMLU-Pro, ARC or GPQA, whichever is there."""
    choices: tuple[str, ...] = ()
    """One column with a list of choices, or one column for each."""
    answer: str = ""
    """The column with the right choice's index from 0, its letter or its words; empty: the first choice."""
    shuffle_seed: int | None = None
    """Seed of the order of choices; None: 0 where the first choice is right, else they stay as they are."""

    is_pure = True

    def __post_init__(self) -> None:
        if not self.data and not self.test_data:
            raise ConfigError(
                "multiple_choice needs questions: name their file or data set by options.test_data"
            )
        if bool(self.question) != bool(self.choices):
            raise ConfigError("multiple_choice: name both columns, options.question and options.choices")

    @property
    def name(self) -> str:
        return "multiple_choice"

    def examples(self, split: Split, seed: int) -> Iterator[Example]:
        """See Task. Raises DataError for a source that cannot be read, or a row without a right choice."""
        rows = self._rows(split)
        form = self._form(rows[0].answer)
        examples = [self._example(row, form) for row in rows]
        return in_order(examples, split, seed)

    def reward(self, example: Example, text: str) -> float:
        """1.0 when the answer gives the right letter (see values/choice.py), else 0.0."""
        return float(self.vote(example, text) == example.answer["letter"])

    def vote(self, example: Example, text: str) -> str | None:
        """The letter that the answer gives."""
        return choice_of(split_reply(text).answer, example.answer["choices"])

    def _rows(self, split: Split) -> list[Example]:
        data = self.data or self.test_data
        names = [self.question] if self.question else [form[0] for form in FORMS]
        for name in dict.fromkeys(names):
            try:
                return read_examples(data, self.test_data, split, {"prompt": name})
            except DataError as error:
                failure = error
        raise failure

    def _form(self, columns: Mapping[str, Any]) -> tuple[str, tuple[str, ...], str]:
        """The columns to read, of the first form whose columns are all there."""
        if self.question:
            return self.question, self.choices, self.answer
        for form in FORMS:
            if all(name in columns for name in (form[0], *form[1], *([form[2]] if form[2] else []))):
                return form
        raise DataError(
            f"the columns {', '.join(columns)} are of no known form; "
            "name them by --set options.question=..., options.choices=... and options.answer=..."
        )

    def _example(self, row: Example, form: tuple[str, tuple[str, ...], str]) -> Example:
        _, names, answer = form
        where = f"the question {row.question[:60]!r}"
        choices = _choices(row.answer, names, where)
        right = _index(row.answer.get(answer), row.answer, names, choices, where) if answer else 0
        shuffle_seed = self.shuffle_seed if self.shuffle_seed is not None or answer else 0
        if shuffle_seed is not None:
            order = random.Random(f"{shuffle_seed}:{row.key}").sample(range(len(choices)), len(choices))
            choices, right = [choices[number] for number in order], order.index(right)
        lines = [f"({letter}) {choice}" for letter, choice in zip(LETTERS, choices, strict=False)]
        question = "\n\n".join([row.question.strip(), "\n".join(lines), ASK.format(letter=LETTERS[0])])
        return Example(key=row.key, question=question, answer={"letter": LETTERS[right], "choices": choices})


def _choices(row: Mapping[str, Any], names: tuple[str, ...], where: str) -> list[str]:
    """The choices of a row: of one column with a list (ARC's has them under `text`), or of several."""
    values = row.get(names[0]) if len(names) == 1 else [row.get(name) for name in names]
    if isinstance(values, Mapping):
        values = values.get("text")
    if not isinstance(values, list) or any(value is None or not str(value).strip() for value in values):
        raise DataError(f"{where} has no list of choices in {', '.join(names)}")
    choices = [str(value).strip() for value in values]
    if not 2 <= len(choices) <= len(LETTERS):
        raise DataError(f"{where} has {len(choices)} choices; there must be 2 to {len(LETTERS)}")
    return choices


def _index(value: Any, row: Mapping[str, Any], names: tuple[str, ...], choices: list[str], where: str) -> int:
    """The index of the right choice, given by an index, a letter, a label or its words."""
    column = row.get(names[0])
    labels = column.get("label") if isinstance(column, Mapping) else None
    if isinstance(labels, list) and str(value) in map(str, labels):
        return [str(label) for label in labels].index(str(value))
    if isinstance(value, (int, float)) and not isinstance(value, bool) and value in range(len(choices)):
        return int(value)
    text = str(value).strip()
    if len(text) == 1 and text.upper() in LETTERS[: len(choices)]:
        return LETTERS.index(text.upper())
    if choices.count(text) == 1:
        return choices.index(text)
    if text.isdecimal() and int(text) < len(choices):
        return int(text)
    raise DataError(f"{where} has the answer {text[:40]!r}, which is no index, letter or one of its choices")
