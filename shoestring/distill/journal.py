"""The journal of a collection: every answer, verdict and cost as it comes, read again on resume."""

import json
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from shoestring.durable import storage_errors
from shoestring.errors import ConfigError, DataError
from shoestring.remote.collector import ChatReply


@dataclass
class Record:
    """An answer and, once there is one, its verdict."""

    id: str
    """The problem's id."""
    text: str
    finish_reason: str
    tokens: int | None = None
    reward: float | None = None
    fault: str | None = None


class Journal:
    """Records in the order they came, written to disk before they are used.

    Each row is a line, written at once: a killed process loses at most the row that it was writing, which is
    removed when the journal is opened again.
    """

    def __init__(self, path: Path, identity: Mapping[str, Any], *, resume: bool) -> None:
        """Begin a journal, or continue one of the same `identity`: the settings that decide an answer.

        Raises ConfigError if there is a journal and no `resume`, or if it has another identity, and DataError
        naming a line that cannot be read.
        """
        self.path, self.records, self.cost = path, list[Record](), 0.0
        self.counts: Counter[str] = Counter()
        """Number of answers to each problem."""
        if path.exists() and not resume:
            raise ConfigError(
                f"{path} has answers already; --resume continues with them, another --out begins anew"
            )
        with storage_errors(path, 1 << 20):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open(path, "a+b", buffering=0)  # noqa: SIM115 (open for the whole collection)
        try:
            self._read(json.loads(json.dumps(identity)))
        except BaseException:
            self._file.close()
            raise

    def add(self, answer: ChatReply) -> int:
        """Record an answer; returns its number for `judge`."""
        row = {"id": answer.id, "text": answer.text, "finish_reason": answer.finish_reason}
        self._write({**row, "tokens": answer.tokens, "cost": answer.cost})
        self._append(Record(answer.id, answer.text, answer.finish_reason, answer.tokens), answer.cost)
        return len(self.records) - 1

    def judge(self, number: int, reward: float | None, fault: str | None) -> None:
        """Record the verdict on answer `number`."""
        self._write({"verdict": number, "reward": reward, "fault": fault})
        self._judge(number, reward, fault)

    def charge(self, cost: float) -> None:
        """Record the cost so far, that of requests without an answer included."""
        if cost > self.cost:
            self._write({"spent": cost})
            self.cost = cost

    def _read(self, identity: dict[str, Any]) -> None:
        self._file.seek(0)
        data = self._file.readall() or b""
        whole = data[: data.rfind(b"\n") + 1]
        with storage_errors(self.path, 1):
            self._file.truncate(len(whole))
        lines = whole.splitlines()
        if not lines:
            self._write({"identity": identity})
            return
        for number, line in enumerate(lines, start=1):
            try:
                row = json.loads(line)
                if number == 1:
                    _check_identity(row["identity"], identity, self.path)
                else:
                    self._replay(row)
            except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError):
                raise DataError(
                    f"{self.path} line {number} is not a row of a journal; remove it, or take another --out"
                ) from None

    def _replay(self, row: dict[str, Any]) -> None:
        if "verdict" in row:
            self._judge(row["verdict"], row["reward"], row["fault"])
        elif "spent" in row:
            self.cost = max(self.cost, float(row["spent"]))
        else:
            record = Record(str(row["id"]), str(row["text"]), str(row["finish_reason"]), row["tokens"])
            self._append(record, float(row["cost"]))

    def _append(self, record: Record, cost: float) -> None:
        self.records.append(record)
        self.counts[record.id] += 1
        self.cost += cost

    def _judge(self, number: int, reward: float | None, fault: str | None) -> None:
        record = self.records[number]
        record.reward, record.fault = reward, fault

    def _write(self, row: dict[str, Any]) -> None:
        line = (json.dumps(row, ensure_ascii=False) + "\n").encode()
        with storage_errors(self.path, len(line)):
            size = self._file.write(line)
            if size != len(line):  # no room for all of it: the next attempt raises and says why
                self._file.write(line[size:])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.fsync(self._file.fileno())
        self._file.close()


def _check_identity(journal: dict[str, Any], collection: dict[str, Any], path: Path) -> None:
    """ConfigError for a setting of the collection that differs from the journal's."""
    for name in sorted(journal.keys() | collection.keys()):
        if journal.get(name) != collection.get(name):
            raise ConfigError(
                f"{path} has answers for {name} = {journal.get(name)!r}, not {collection.get(name)!r}; "
                "set it back, or take another --out"
            )
