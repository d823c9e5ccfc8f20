"""IFEval: prompts with instructions that a program can check (arXiv 2311.07911)."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from shoestring.errors import ConfigError, DataError
from shoestring.tasks.answers import split_reply
from shoestring.tasks.custom.columns import read_examples
from shoestring.tasks.instructions.checks import check_of, follows, follows_loosely
from shoestring.tasks.problems import in_order
from shoestring.tasks.task import Example, Split, Task


@dataclass(frozen=True, kw_only=True)
class IfEval(Task):
    """Prompts with the columns `prompt`, `instruction_id_list` and `kwargs`, as google/IFEval has them.

    The reward is the share of a prompt's instructions that the answer follows strictly, so that pass@1 is the
    prompt-level strict accuracy. An evaluation also has the paper's four figures.
    """

    data: str = ""
    """A file, folder, pattern or data set of the hub: jsonl, JSON, csv, parquet, also .gz and .zst."""
    test_data: str = ""
    """The same for the test split; alone, all of it is for the test."""

    is_pure = True

    def __post_init__(self) -> None:
        if not self.data and not self.test_data:
            raise ConfigError(
                "ifeval needs prompts: name them by an option, such as options.test_data=google/IFEval"
            )

    @property
    def name(self) -> str:
        return "ifeval"

    def examples(self, split: Split, seed: int) -> Iterator[Example]:
        """See Task. Raises DataError for a source that cannot be read or an unknown instruction."""
        rows = read_examples(self.data or self.test_data, self.test_data, split, {})
        return in_order([_example(row) for row in rows], split, seed)

    def reward(self, example: Example, text: str) -> float:
        """The share of the instructions that the answer follows strictly."""
        strict = self.figures(example, text)["instruction_strict"]
        return sum(strict) / len(strict)

    def figures(self, example: Example, text: str) -> Mapping[str, Sequence[float]]:
        """Strict and loose, by prompt (whether all instructions are followed) and by instruction."""
        answer = split_reply(text).answer
        checks = [check_of(name, arguments) for name, arguments in example.answer]
        strict = [float(follows(answer, check)) for check in checks]
        loose = [float(follows_loosely(answer, check)) for check in checks]
        return {
            "prompt_strict": [min(strict)],
            "prompt_loose": [min(loose)],
            "instruction_strict": strict,
            "instruction_loose": loose,
        }


def _example(row: Example) -> Example:
    """A row with its instructions as [name, arguments]; arguments that are null do not count."""
    names, arguments = row.answer.get("instruction_id_list"), row.answer.get("kwargs")
    where = f"the prompt {row.question[:60]!r}"
    if not isinstance(names, list) or not isinstance(arguments, list) or not len(names) == len(arguments) > 0:
        raise DataError(f"{where} has no instruction_id_list with kwargs of the same length")
    pairs: list[tuple[str, dict[str, Any]]] = []
    for name, values in zip(names, arguments, strict=True):
        present = {key: value for key, value in (values or {}).items() if value is not None}
        try:
            check_of(name, present)
        except ValueError as error:
            raise DataError(f"{where}: {error}") from None
        pairs.append((name, present))
    return replace(row, answer=pairs)
