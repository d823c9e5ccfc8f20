"""Fields of a Hugging Face config.json: each one is read, ignored because it changes nothing, or refused."""

import math
from typing import Any

from shoestring.errors import ConfigError
from shoestring.model.hf.inert import is_inert

MAX_SIZE = 2**31 - 1
NO_DEFAULT: Any = object()
"""In place of a default: the field must be present."""


class Fields:
    """The fields of one JSON object, each read once; `finish` refuses the others. null means absent."""

    def __init__(self, data: dict[str, Any], where: str) -> None:
        self._unread_fields = dict(data)
        self.where = where

    def size(self, name: str, default: Any = NO_DEFAULT, *, least: int = 1, most: int = MAX_SIZE) -> Any:
        """A count, or `default` (which may be None) when the field is absent."""
        value = self._take(name, default)
        if value is not default and not (type(value) is int and least <= value <= most):
            self._refuse(name, value, f"must be a whole number from {least} to {most}")
        return value

    def number(self, name: str, default: Any = NO_DEFAULT) -> Any:
        value = self._take(name, default)
        if value is default:
            return value
        if type(value) not in (int, float) or not math.isfinite(value):
            self._refuse(name, value, "must be a number")
        return float(value)

    def flag(self, name: str, default: Any = NO_DEFAULT) -> bool:
        value = self._take(name, default)
        if type(value) is not bool:
            self._refuse(name, value, "must be true or false")
        return value

    def choice(self, name: str, choices: tuple[str, ...], default: Any = NO_DEFAULT) -> Any:
        value = self._take(name, default)
        if value not in choices:
            self._refuse(name, value, f"must be one of {', '.join(choices)}")
        return value

    def table(self, name: str) -> dict[str, Any]:
        value = self._take(name, {})
        if not isinstance(value, dict):
            self._refuse(name, value, "must be an object")
        return value

    def token_id(self, name: str) -> int | None:
        """One token id, or none: absent or -1."""
        value = self.size(name, None, least=-1)
        return None if value == -1 else value

    def token_ids(self, name: str) -> int | tuple[int, ...] | None:
        """One token id, several, or none: absent or -1."""
        value = self._take(name, None)
        if value == -1:
            return None
        ids = value if isinstance(value, list) else [value]
        if value is not None and not (ids and all(type(i) is int and 0 <= i <= MAX_SIZE for i in ids)):
            self._refuse(name, value, "must be a token id or a list of them")
        return tuple(ids) if isinstance(value, list) else value

    def must_be(self, name: str, *values: Any) -> None:
        """Refuse any value but these; the field may be absent."""
        value = self._take(name, values[0])
        if value not in values:
            self._refuse(name, value, f"is not supported: only {' or '.join(map(repr, values))} is")

    def indices(self, name: str) -> tuple[int, ...]:
        """A list of whole numbers from 0; none if the field is absent."""
        value = self._take(name, [])
        if not isinstance(value, list) or not all(type(i) is int and 0 <= i <= MAX_SIZE for i in value):
            self._refuse(name, value, "must be a list of whole numbers from 0")
        return tuple(value)

    def full_attention_everywhere(self) -> None:
        """Refuse a list of layers that has another attention in it."""
        value = self._take("layer_types", [])
        if not isinstance(value, list) or any(kind != "full_attention" for kind in value):
            self._refuse("layer_types", value, "is not supported: only 'full_attention' is")

    def finish(self) -> None:
        """Raise ConfigError for the first field that was not read and may change the model's outputs."""
        for name, value in self._unread_fields.items():
            if not is_inert(name, value):
                self._refuse(
                    name,
                    value,
                    "is a field this code does not know; null, false or 0 would do. Remove it from a copy of "
                    "the file if it cannot change the model's answers, else use software that supports it",
                )

    def _take(self, name: str, default: Any) -> Any:
        value = self._unread_fields.pop(name, None)
        if value is None:
            value = default
        if value is NO_DEFAULT:
            raise ConfigError(
                f"{self.where} lacks {name}; it is not the configuration of a model this code runs"
            )
        return value

    def _refuse(self, name: str, value: Any, rule: str) -> None:
        raise ConfigError(f"{self.where}: {name[:100]!r} = {repr(value)[:100]} {rule}")
