"""Counts of the conversations of files: used, left out and why, and what of them is not used."""

from collections import Counter
from typing import Any

from shoestring.data.chat.encoding import EncodedRow
from shoestring.data.chat.mixture import DataSource
from shoestring.data.folder import sha256_of
from shoestring.rows.source import DataFile

COUNTS = ("conversations", "too_long", "shortened", "unlearned", "bad_rows", "unlearned_turns")


class FileTally:
    """Counts of one file."""

    def __init__(self, file: DataFile, source: DataSource) -> None:
        self.file, self.source = file, source
        self.counts = dict.fromkeys((*COUNTS, "tokens", "learned_tokens"), 0)
        self._remarks: Counter[str] = Counter()

    def add(self, item: EncodedRow) -> None:
        """Count one row."""
        self._remarks.update(item.remarks)
        self.counts["unlearned_turns"] += item.unlearned_turns
        if item.left_out:
            self.counts[item.left_out] += 1
            return
        self.counts["conversations"] += 1
        self.counts["shortened"] += item.full_length > len(item.ids)
        self.counts["tokens"] += len(item.ids) - 1
        self.counts["learned_tokens"] += sum(item.loss_mask[1:])

    @property
    def remarks(self) -> list[str]:
        """One sentence for each column and key that is not used, and part that is not written."""
        return [
            f"{self.file.name}: {remark} ({'1 row' if count == 1 else f'{count:,} rows'})"
            for remark, count in self._remarks.items()
        ]

    def manifest(self) -> dict[str, Any]:
        """The file's line in the manifest of a run; raises OSError."""
        size, digest = self.file.path.stat().st_size, sha256_of(self.file.path)
        weight = self.source.weight
        return {"path": self.file.name, "bytes": size, "sha256": digest, "weight": weight, **self.counts}


class Tally:
    """Counts over all files of a run."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.longest = 0
        """Tokens of the longest conversation."""
        self.first_problem = ""

    def add(self, item: EncodedRow) -> None:
        """Count one row."""
        self.counts[item.left_out or "used"] += 1
        self.counts["shortened"] += not item.left_out and item.full_length > len(item.ids)
        self.longest = max(self.longest, item.full_length)
        if item.problem and not self.first_problem:
            self.first_problem = f"{item.place}: {item.problem}"

    def nothing(self, names: str, seq_len: int) -> str:
        """A sentence for sources that leave nothing to learn from."""
        reasons = []
        if long := self.counts["too_long"]:
            number = f"all {long}" if 1 < long == self.counts.total() else f"{long} of {self.counts.total()}"
            reasons.append(
                f"{number} have more than seq_len = {seq_len} tokens (--set seq_len={self.longest})"
            )
        if marks := self.counts["unlearned"]:
            reasons.append(f"{marks} are marked not to be learned, by weight 0 or train false")
        if self.first_problem:
            reasons.append(f"{self.counts['bad_rows']} are no conversations, first {self.first_problem}")
        return f"no conversation to learn from in {names}" + (f": {'; '.join(reasons)}" if reasons else "")
