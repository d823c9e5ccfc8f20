"""Columns of a row by the names of this package, and which of them were read."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from shoestring.errors import ConfigError

ALIASES: Mapping[str, tuple[str, ...]] = {
    "messages": ("messages", "conversations", "conversation"),
    "tools": ("tools",),
    "system": ("system", "system_prompt"),
    "prompt": ("prompt", "question", "query"),
    "completion": ("completion", "response", "answer"),
    "instruction": ("instruction",),
    "input": ("input", "context"),
    "output": ("output",),
    "history": ("history",),
    "chosen": ("chosen", "chosen_messages"),
    "rejected": ("rejected", "rejected_messages"),
    "label": ("label", "kto_tag"),
    "role": ("role", "from"),
    "content": ("content", "value"),
}
"""Names of columns that are known; the last two are those of the messages in a conversation."""
ABOUT = frozenset({"id", "source", "task", "key", "reward"})
"""Columns about a conversation, which nobody expects to be learned."""


def check_columns(columns: Mapping[str, str]) -> None:
    """Raise ConfigError for a name that is not one of ALIASES."""
    for name in columns:
        if name not in ALIASES:
            raise ConfigError(f"columns has no {name!r}; its names are {', '.join(ALIASES)}")


class Fields:
    """The values of a row, each by its name in ALIASES; `columns` says which column it has instead."""

    def __init__(self, values: Mapping[str, Any], columns: Mapping[str, str]) -> None:
        self.values, self.columns = values, columns
        self._read: set[str] = set()

    def __contains__(self, name: str) -> bool:
        return self._column(name) is not None

    def get(self, name: str) -> Any:
        """The value, None if there is none; a list that is spelled as JSON text is read."""
        column = self._column(name)
        if column is None:
            return None
        self._read.add(column)
        return self.values[column]

    def text(self, name: str) -> str:
        """The value, which must be text; empty if there is none. Raises ValueError."""
        value = self.get(name)
        if value is not None and not isinstance(value, str):
            raise ValueError(f"its {self._column(name)!r} is a {type(value).__name__}, not text")
        return value or ""

    def items(self, name: str) -> list[Any] | None:
        """The value, which must be a list, or JSON text of one; None if there is none. Raises ValueError."""
        value = self.get(name)
        if isinstance(value, str):
            value = json_list(value) if value.strip() else None
        if value is not None and not isinstance(value, list):
            raise ValueError(f"its {self._column(name)!r} is not a list")
        return value

    def unread(self) -> Iterable[str]:
        """Columns with a value that were not read and are not merely about the conversation."""
        return [
            name
            for name, value in self.values.items()
            if name not in self._read and name not in ABOUT and value not in (None, "", [])
        ]

    def _column(self, name: str) -> str | None:
        """The column of a name; None where the row has no value for it."""
        names = (self.columns[name],) if name in self.columns else ALIASES[name]
        return next((column for column in names if self.values.get(column) is not None), None)


def json_list(text: str) -> Any:
    """The list that a text spells in JSON; the text itself if it spells none."""
    return _json(text, "[")


def json_object(text: str) -> Any:
    """The object that a text spells in JSON; the text itself if it spells none."""
    return _json(text, "{")


def _json(text: str, first: str) -> Any:
    if text.lstrip().startswith(first):
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            return text
    return text
