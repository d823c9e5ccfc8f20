"""metrics.jsonl: a JSON object for each step, written at once; a resumed run continues it without gaps."""

import contextlib
import json
import logging
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

from shoestring.durable import storage_error, write_atomic
from shoestring.errors import DataError

log = logging.getLogger(__name__)

# JSON has no such numbers; these words are what JavaScript and Python print for them.
_NON_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


class MetricsLog:
    """Appends rows to `path`. Each is one write to the system, so a killed process loses none."""

    def __init__(self, path: Path, resume_step: int | None = None) -> None:
        """Start a new log (`resume_step=None` replaces what is there), or continue one.

        Continuing keeps the rows up to `resume_step` byte for byte, and drops the later ones and any line
        that cannot be read, in one rename. Raises StorageError.
        """
        self.path = path
        rows = b"" if resume_step is None else b"".join(_rows_until(path, resume_step))
        write_atomic(path, rows)
        self._file = open(path, "ab", buffering=0)  # noqa: SIM115 (open for the whole run)

    def log(self, step: int, stats: Mapping[str, Any]) -> None:
        """Append {"step": step, **stats}; NaN and infinities are written as strings. Raises StorageError."""
        row = {"step": step, **{name: value for name, value in stats.items() if name != "step"}}
        line = (json.dumps(_plain(row), allow_nan=False) + "\n").encode()
        start = os.fstat(self._file.fileno()).st_size
        try:
            size = self._file.write(line)
            if size != len(line):  # no room for all of it: the next attempt raises and says why
                self._file.write(line[size:])
        except OSError as error:
            with contextlib.suppress(OSError):
                os.truncate(self.path, start)
            raise storage_error(error, self.path, len(line)) from error

    def sync(self) -> None:
        """Force the rows to the disk; before a checkpoint, so that a power cut loses none that it covers."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read(path: Path) -> list[dict[str, Any]]:
    """The rows of a log, in order, without a last line that a crash left incomplete.

    Raises DataError if there is no such file, or naming the line that is not a JSON object with a step.
    """
    try:
        lines = path.read_bytes().splitlines(keepends=True)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from None
    rows = []
    for number, line in enumerate(lines, start=1):
        row = _parse(line)
        if row is not None:
            rows.append(row)
        elif number < len(lines):
            raise DataError(f"{path} line {number} is not a row of metrics; remove it, or resume the run")
    return rows


def _rows_until(path: Path, step: int) -> Iterator[bytes]:
    try:
        lines = path.read_bytes().splitlines(keepends=True)
    except FileNotFoundError:
        return
    for number, line in enumerate(lines, start=1):
        row = _parse(line)
        if row is None:
            log.warning("%s line %d cannot be read and is dropped", path, number)
        elif row["step"] <= step:
            yield line


def _parse(line: bytes) -> dict[str, Any] | None:
    """The row on one line; None if it is incomplete (without newline) or not a row."""
    try:
        row = json.loads(line) if line.endswith(b"\n") else None
    except (ValueError, RecursionError):
        return None
    if not isinstance(row, dict) or type(row.get("step")) is not int:
        return None
    return {name: _NON_FINITE.get(v, v) if isinstance(v, str) else v for name, v in row.items()}


def _plain(value: Any) -> Any:
    """`value` as strict JSON; tensors and arrays become numbers and lists."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, float) and not math.isfinite(value):
        return next(word for word, number in _NON_FINITE.items() if str(number) == str(value))
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
