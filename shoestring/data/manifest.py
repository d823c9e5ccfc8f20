"""Manifest of a corpus: every file with its hash, its license, and documents, bytes and tokens per split."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from shoestring.data.corpus import CorpusFile, SkipCounts

SPLITS = ("train", "heldout")
"""Names of the splits; an index stores the position in this tuple."""


def corpus_manifest(
    files: list[CorpusFile],
    index: NDArray[Any],
    *,
    licenses: list[str | None],
    duplicates: dict[str, int],
    skips: SkipCounts,
) -> dict[str, Any]:
    """Manifest of a corpus as a JSON object; `index` has one textstore.INDEX entry per document."""
    counts = np.bincount(index["license"], minlength=len(licenses)).tolist()
    per_file = _licenses_per_file(index, licenses, len(files))
    manifest: dict[str, Any] = {
        "files": [
            {
                "path": file.file.name,
                "source": file.file.source,
                "bytes": file.bytes,
                "sha256": file.sha256,
                "license": license,
            }
            for file, license in zip(files, per_file, strict=True)
        ],
        "licenses": licenses,
        "totals": {
            "documents_per_license": {
                name or "unknown": count for name, count in zip(licenses, counts, strict=True)
            }
        },
        "duplicates_removed": duplicates,
        "skipped": [
            {"path": path, "reason": reason, "count": count}
            for (path, reason), count in sorted(skips.items())
        ],
    }
    sizes = entry_sizes(index)
    add_counts(manifest, index, "documents", np.ones_like(sizes))
    add_counts(manifest, index, "text_bytes", sizes)
    return manifest


def add_counts(manifest: dict[str, Any], index: NDArray[Any], name: str, amounts: NDArray[np.int64]) -> None:
    """Add the sums `name: {train, heldout}` per file and in total; `amounts` has one entry per document."""
    files = manifest["files"]
    manifest["totals"][name] = {}
    for number, split in enumerate(SPLITS):
        in_split = index["split"] == number
        sums = np.zeros(len(files), dtype=np.int64)
        np.add.at(sums, index["file"][in_split], amounts[in_split])
        for entry, amount in zip(files, sums.tolist(), strict=True):
            entry.setdefault(name, {})[split] = amount
        manifest["totals"][name][split] = int(sums.sum())


def entry_sizes(index: NDArray[Any]) -> NDArray[np.int64]:
    """Size of each entry: the difference to the `end` of the entry before it.  # (documents,)"""
    ends = index["end"].astype(np.int64)
    return ends - np.concatenate((np.zeros(1, dtype=np.int64), ends[:-1]))


def _licenses_per_file(index: NDArray[Any], licenses: list[str | None], count: int) -> list[str | None]:
    """Licenses of the documents of each file, several with commas between them; None where none is known."""
    per_file: list[list[str]] = [[] for _ in range(count)]
    width = max(len(licenses), 1)
    for pair in np.unique(index["file"].astype(np.int64) * width + index["license"]).tolist():
        per_file[pair // width].append(licenses[pair % width] or "unknown")
    return [None if set(names) <= {"unknown"} else ", ".join(sorted(names)) for names in per_file]
