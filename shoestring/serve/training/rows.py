"""The rows of a growing JSONL file, read on from where the last reading ended."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from shoestring.serve.training.folder import open_inside

MAX_READ_BYTES = 16 << 20
"""Of one reading; the next one goes on there."""
MAX_LINE_BYTES = 1 << 20


class Rows:
    """The rows of one file. Lines that are no objects with a step, or too long, are left out."""

    def __init__(self, folder: Path, *parts: str) -> None:
        self._folder, self._parts = folder, parts
        self._place = 0
        self._inode = 0

    def read(self) -> tuple[list[dict[str, Any]], bool]:
        """The new rows, and whether they are the first ones: of another file, or of a shorter one."""
        file = open_inside(self._folder, *self._parts)
        if file is None:
            return [], False
        with file:
            state = os.fstat(file.fileno())
            is_new = self._inode != state.st_ino or state.st_size < self._place
            if is_new:
                self._place, self._inode = 0, state.st_ino
            file.seek(self._place)
            content = file.read(MAX_READ_BYTES)
        end = content.rfind(b"\n") + 1
        if not end and len(content) > MAX_LINE_BYTES:
            end = len(content)  # a line without an end: go on behind what was read of it
        self._place += end
        return list(_rows(content[:end])), is_new


def _rows(content: bytes) -> Iterator[dict[str, Any]]:
    for line in content.split(b"\n"):
        if not line or len(line) > MAX_LINE_BYTES:
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(row, dict) and type(row.get("step")) is int and 0 <= row["step"] < 1 << 53:
            yield row
