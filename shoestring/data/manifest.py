"""The manifest of a corpus: every file with its hash, license, documents, bytes and tokens by split."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from shoestring.data.corpus import CorpusFile, Skipped

SPLITS = ("train", "heldout")
"""A document's split in an index is a position in this tuple."""


def corpus_manifest(
    files: list[CorpusFile],
    index: NDArray[Any],
    *,
    licenses: list[str | None],
    duplicates: dict[str, int],
    skipped: Skipped,
) -> dict[str, Any]:
    """What went into a corpus; `index` has one textstore.INDEX entry per kept document."""
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
            for (path, reason), count in sorted(skipped.items())
        ],
    }
    sizes = sizes_of(index)
    add_counts(manifest, index, "documents", np.ones_like(sizes))
    add_counts(manifest, index, "text_bytes", sizes)
    return manifest


def add_counts(manifest: dict[str, Any], index: NDArray[Any], name: str, amounts: NDArray[np.int64]) -> None:
    """Add `name: {train, heldout}` per file and in total; `amounts` has one entry per document."""
    files = manifest["files"]
    manifest["totals"][name] = {}
    for number, split in enumerate(SPLITS):
        chosen = index["split"] == number
        sums = np.zeros(len(files), dtype=np.int64)
        np.add.at(sums, index["file"][chosen], amounts[chosen])
        for entry, amount in zip(files, sums.tolist(), strict=True):
            entry.setdefault(name, {})[split] = amount
        manifest["totals"][name][split] = int(sums.sum())


def sizes_of(index: NDArray[Any]) -> NDArray[np.int64]:
    """What each entry adds to the rising `end` column.  # (documents,)"""
    ends = index["end"].astype(np.int64)
    return ends - np.concatenate((np.zeros(1, dtype=np.int64), ends[:-1]))


def _licenses_per_file(index: NDArray[Any], licenses: list[str | None], count: int) -> list[str | None]:
    """The license of each file's documents: several are joined by a comma; None where none is known."""
    found: list[list[str]] = [[] for _ in range(count)]
    width = max(len(licenses), 1)
    for pair in np.unique(index["file"].astype(np.int64) * width + index["license"]).tolist():
        found[pair // width].append(licenses[pair % width] or "unknown")
    return [None if set(names) <= {"unknown"} else ", ".join(sorted(names)) for names in found]
