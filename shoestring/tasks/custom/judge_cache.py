"""The cache of a judge's verdicts: a file with one line each, so that none is asked or paid twice."""

import json
import math
import os
from pathlib import Path
from typing import Any

from shoestring.durable import storage_errors


class JudgeCache:
    """Verdicts by the digest of all that decides them, and what they have cost so far.

    A line is written at once: a killed process loses at most the one that it was writing. Several processes
    may write into one file.
    """

    def __init__(self, path: Path) -> None:
        """Read the file, if it is there; lines that cannot be read are passed over."""
        self.path = path
        self.scores: dict[str, float | None] = {}
        self.num_requests = 0
        self.num_tokens = 0
        """Of prompts and verdicts together."""
        self.cost = 0.0
        for line in self._lines():
            self._count(line)

    def add(self, key: str, score: float | None, *, tokens: int, cost: float) -> None:
        """Keep a verdict; None is one that was no score. Raises StorageError for a full disk."""
        row = {"key": key, "score": score, "tokens": tokens, "cost": cost}
        data = (json.dumps(row) + "\n").encode()
        with storage_errors(self.path, len(data)):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(self.path, "ab", buffering=0) as file:
                if file.tell() and not self._ends_whole():
                    file.write(b"\n")  # after the part of a line that a killed process left
                file.write(data)
                os.fsync(file.fileno())
        self._count(row)

    def _ends_whole(self) -> bool:
        with open(self.path, "rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read(1) == b"\n"

    def _lines(self) -> list[dict[str, Any]]:
        if not self.path.is_file():
            return []
        rows = []
        for line in self.path.read_bytes().splitlines():
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(row, dict) and isinstance(row.get("key"), str) and _is_score(row.get("score")):
                rows.append(row)
        return rows

    def _count(self, row: dict[str, Any]) -> None:
        self.scores.setdefault(row["key"], row["score"])
        self.num_requests += 1
        tokens, cost = row.get("tokens"), row.get("cost")
        self.num_tokens += tokens if type(tokens) is int and tokens > 0 else 0
        self.cost += cost if isinstance(cost, int | float) and 0 < cost < math.inf else 0.0


def _is_score(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and math.isfinite(value))
