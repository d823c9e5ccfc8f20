"""The journal of a collection: every answer, verdict and cost, appended as it comes, read again on resume."""

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
    """One answer and, once it is known, its verdict."""

    id: str
    """Of the problem."""
    text: str
    finish_reason: str
    tokens: int | None = None
    reward: float | None = None
    fault: str | None = None


class Journal:
    """Records in the order they came, on disk before anything is made of them.

    One line a row, handed to the system whole: a killed process loses at most the row it was writing, which
    is dropped when the journal is opened again.
    """

    def __init__(self, path: Path, identity: Mapping[str, Any], *, resume: bool) -> None:
        """Begin a journal, or go on with one made for the same `identity` (what decides an answer).

        Raises ConfigError for one that is there without `resume` or is another's, DataError naming a line
        that cannot be read.
        """
        self.path, self.records, self.spent = path, list[Record](), 0.0
        self.counts: Counter[str] = Counter()
        """Answers there are to each problem."""
        if path.exists() and not resume:
            raise ConfigError(
                f"{path} holds answers already; --resume goes on with them, or take another --out"
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
        """Keep an answer; its number, by which `judge` knows it."""
        row = {"id": answer.id, "text": answer.text, "finish_reason": answer.finish_reason}
        self._write({**row, "tokens": answer.tokens, "cost": answer.cost})
        self._take(Record(answer.id, answer.text, answer.finish_reason, answer.tokens), answer.cost)
        return len(self.records) - 1

    def judge(self, number: int, reward: float | None, fault: str | None) -> None:
        """Keep the verdict on record `number`."""
        self._write({"verdict": number, "reward": reward, "fault": fault})
        self._judge(number, reward, fault)

    def charge(self, spent: float) -> None:
        """All the money spent until now, that of requests which brought nothing included."""
        if spent > self.spent:
            self._write({"spent": spent})
            self.spent = spent

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
            self.spent = max(self.spent, float(row["spent"]))
        else:
            record = Record(str(row["id"]), str(row["text"]), str(row["finish_reason"]), row["tokens"])
            self._take(record, float(row["cost"]))

    def _take(self, record: Record, cost: float) -> None:
        self.records.append(record)
        self.counts[record.id] += 1
        self.spent += cost

    def _judge(self, number: int, reward: float | None, fault: str | None) -> None:
        record = self.records[number]
        record.reward, record.fault = reward, fault

    def _write(self, row: dict[str, Any]) -> None:
        line = (json.dumps(row, ensure_ascii=False) + "\n").encode()
        with storage_errors(self.path, len(line)):
            written = self._file.write(line)
            if written != len(line):  # no room for all of it: the next attempt raises and says why
                self._file.write(line[written:])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.fsync(self._file.fileno())
        self._file.close()


def _check_identity(found: dict[str, Any], wanted: dict[str, Any], path: Path) -> None:
    for name in sorted(found.keys() | wanted.keys()):
        if found.get(name) != wanted.get(name):
            raise ConfigError(
                f"{path} holds answers for {name} = {found.get(name)!r}, not {wanted.get(name)!r}; "
                "go back to that, or take another --out"
            )
