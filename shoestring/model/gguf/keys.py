"""Keys of a GGUF file's architecture: each one is read, ignored because it changes nothing, or refused."""

from typing import Any

import numpy as np

from shoestring.errors import CheckpointError
from shoestring.model.gguf.file import GGUFFile
from shoestring.model.gguf.inert import is_inert, values_that_do

MAX_FLOAT32 = 3e38


class Keys:
    """Typed access to a file's metadata by key, without the architecture's prefix; `finish` refuses the rest.

    A key that may have one value for each layer may be an array; its values must then be equal.
    """

    def __init__(self, file: GGUFFile) -> None:
        self._file = file
        arch = file.metadata.get("general.architecture")
        if not isinstance(arch, str):
            raise CheckpointError(f"{file.path} does not name its general.architecture; convert it again")
        self.arch = arch
        self._read = set[str]()

    def has(self, name: str) -> bool:
        return f"{self.arch}.{name}" in self._file.metadata

    def size(self, name: str, default: int | None = None, *, least: int = 1, most: int = 2**31 - 1) -> int:
        value = self._get(name, default)
        if isinstance(value, np.ndarray) and value.size and (value == value[0]).all():
            value = value[0].item()
        if type(value) is not int or not least <= value <= most:
            raise self.error(name, value, f"a whole number from {least} to {most}")
        return value

    def number(self, name: str, default: float | None = None) -> float:
        value = self._get(name, default)
        if type(value) not in (int, float) or not abs(value) <= MAX_FLOAT32:  # refuses NaN too
            raise self.error(name, value, "a number")
        return float(str(np.float32(value)))  # the shortest decimal: 1e-06, not 9.99999997e-07

    def flag(self, name: str, default: bool) -> bool:
        value = self._get(name, default)
        if type(value) is not bool:
            raise self.error(name, value, "true or false")
        return value

    def choice(self, name: str, default: Any, options: tuple[Any, ...]) -> Any:
        value = self._get(name, default)
        if not isinstance(value, str | int) or value not in options:
            raise self.error(name, value, f"one of {', '.join(map(str, options))}")
        return value

    def must_be(self, name: str, *values: float) -> None:
        """Refuse any number but these; the key may be absent."""
        value = self.number(name, values[0])
        if value not in [float(str(np.float32(value))) for value in values]:
            raise self.error(
                name, value, f"supported: only {' or '.join(f'{v:g}' for v in dict.fromkeys(values))} is"
            )

    def ignore(self, *prefixes: str) -> None:
        """Count the keys that begin with one of these as read: nothing that they say applies."""
        names = (key.removeprefix(f"{self.arch}.") for key in self._file.metadata)
        self._read.update(name for name in names if name.startswith(prefixes))

    def finish(self) -> None:
        """Raise CheckpointError for the first key that was not read and may change the model's outputs."""
        for key, value in self._file.metadata.items():
            name = key.removeprefix(f"{self.arch}.")
            if name != key and name not in self._read and not is_inert(name, value):
                values = " or ".join(str(value) for value in values_that_do(name))
                raise self.error(name, value, f"supported: only {values} is, which changes nothing")

    def error(self, name: str, value: object, rule: str) -> CheckpointError:
        return CheckpointError(
            f"{self._file.path}: {self.arch}.{name[:80]} = {str(value)[:80]} is not {rule}"
        )

    def _get(self, name: str, default: Any) -> Any:
        self._read.add(name)
        value = self._file.metadata.get(f"{self.arch}.{name}", default)
        if value is None:
            raise CheckpointError(f"{self._file.path} lacks the key {self.arch}.{name}; convert it again")
        return value
