"""CustomTask: a task that a class of the user writes, with every mistake of it in one sentence."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, is_dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from shoestring import config
from shoestring.errors import ConfigError, DataError, ShoestringError
from shoestring.tasks.custom.source import is_task, line_of, load_own, sentence
from shoestring.tasks.custom.tools import Tool, load_tools
from shoestring.tasks.task import Example, Split, Task, vote_of_text

MAX_TURNS = 5
"""Turns of a conversation with tools, where the task does not say."""


@dataclass(frozen=True, kw_only=True)
class CustomTask(Task):
    """The task of a class in the user's file or module; its reward runs in a child process."""

    source: str
    """`file.py:Class`, `file.py` or `module:Class`."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the class, where it is a dataclass."""

    def __post_init__(self) -> None:
        assert self.own is not None  # its mistakes show before any heavy work

    @cached_property
    def own(self) -> Any:
        """The user's object."""
        cls = load_own(self.source)[0]
        if not is_task(cls):
            raise ConfigError(f"{self.source} is no class with the methods of a task")
        if is_dataclass(cls) and isinstance(cls, type):
            where = f"the task {self.source}"
            return self._call(lambda: config.build(cls, dict(self.options), where))
        if self.options:
            raise ConfigError(f"{self.source} has no options; make the class a dataclass to give it fields")
        return self._call(cls)

    @cached_property
    def tools(self) -> tuple[Tool, ...]:
        """The user's tools: functions, names of ours, or `file.py:name`."""
        return load_tools(getattr(self.own, "tools", ()))

    @property
    def max_turns(self) -> int:
        """The user's limit; with tools, five turns where the class says nothing."""
        return int(getattr(self.own, "max_turns", MAX_TURNS if self.tools else 1))

    @property
    def name(self) -> str:
        name = getattr(self.own, "name", None)
        return name if isinstance(name, str) and name else Path(self.source.partition(":")[0]).stem

    def examples(self, split: Split, seed: int) -> Iterator[Example]:
        """The user's examples; a training split that ends starts anew with the next seed.

        Raises DataError for an error in the user's code, and for what is no example.
        """
        while True:
            count = 0
            items = self._call(partial(self._items, split, seed))
            while (item := self._call(partial(next, items, None))) is not None:
                count += 1
                yield self._example(item)
            if split == "test" and count:
                return
            if not count:
                raise DataError(f"{line_of(self.own.examples)}: examples({split!r}, {seed}) gives none")
            seed += 1

    def reward(self, example: Example, text: str) -> float | None:
        """The user's reward as a number; TypeError for something else."""
        value = self.own.reward(example, text)
        if value is None:
            return None
        try:
            return float(value)  # numbers of numpy and torch too
        except (TypeError, ValueError):
            raise TypeError(
                f"{line_of(self.own.reward)}: reward gives {repr(value)[:60]}, which is no number"
            ) from None

    def vote(self, example: Example, text: str) -> str | None:
        """The user's vote if there is one, else the answer's text."""
        own = getattr(self.own, "vote", None)
        if own is None:
            return vote_of_text(text)
        value = self._call(lambda: own(example, text))
        return None if value is None else str(value)

    def prepare(self) -> None:
        """The user's preparation, if there is one."""
        if callable(prepare := getattr(self.own, "prepare", None)):
            prepare()

    def _items(self, split: Split, seed: int) -> Iterator[Any]:
        return iter(self.own.examples(split, seed))

    def _example(self, item: Any) -> Example:
        where = line_of(self.own.examples)
        values = item if isinstance(item, Mapping) else None
        if values is not None:
            try:
                item = Example(**values)
            except TypeError as error:
                raise DataError(
                    f"{where}: an example is wrong: {str(error).removeprefix('Example.')}"
                ) from None
        if not isinstance(item, Example):
            raise DataError(
                f"{where}: examples gives a {type(item).__name__}; "
                "it has to yield Example(question=..., answer=...)"
            )
        if not isinstance(item.question, str) or not item.question.strip():
            raise DataError(f"{where}: the question of an example is {item.question!r}; it has to be text")
        try:
            answer = json.loads(json.dumps(item.answer))
        except (TypeError, ValueError):
            raise DataError(
                f"{where}: the answer of an example is a {type(item.answer).__name__}, which is not JSON; "
                "take numbers, texts, lists and dictionaries"
            ) from None
        return Example(key=str(item.key), question=item.question, answer=answer, messages=item.messages)

    def _call(self, function: Callable[[], Any]) -> Any:
        """The result of user's code; DataError with file and line for an error in it."""
        try:
            return function()
        except ShoestringError:
            raise
        except Exception as error:
            raise DataError(f"the task {self.source} failed: {sentence(error)}") from None
