"""Cleaned corpus on disk: documents without duplicates, split by document, in one text file with an index.

All later stages (tokenizer training, tokenization, evaluation) read this and not the sources, so duplicates
are removed once and held-out documents cannot leak into training. Files: `text.bin` (UTF-8, all documents one
after the other), `documents.npy` (one INDEX entry per document), `manifest.json`.
"""

import hashlib
import json
import logging
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from shoestring.data.corpus import CorpusFile, DataConfig, Document, SkipCounts, corpus_files, read_documents
from shoestring.data.dedup import Deduplicator, Match
from shoestring.data.folder import open_sealed, seal
from shoestring.data.manifest import SPLITS, corpus_manifest, entry_sizes
from shoestring.durable import new_folder
from shoestring.errors import DataError

log = logging.getLogger(__name__)

KIND, FORMAT = "a shoestring corpus", 1
TEXT, DOCUMENTS = "text.bin", "documents.npy"
INDEX = np.dtype([("end", "<u8"), ("file", "<u4"), ("license", "<u4"), ("split", "u1")])
Progress = Callable[[int, int], None]
"""Called with (bytes done, bytes in all)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TextStore:
    """A cleaned corpus; `index` has one INDEX entry per document, `manifest` lists its files."""

    folder: Path
    manifest: dict[str, Any]
    index: NDArray[Any]

    def select(self, split: str) -> NDArray[np.int64]:
        """Indices of the documents of a split, in order.  # (documents,)"""
        return np.flatnonzero(self.index["split"] == SPLITS.index(split)).astype(np.int64)

    def sizes(self) -> NDArray[np.int64]:
        """UTF-8 bytes of every document.  # (documents,)"""
        return entry_sizes(self.index)

    def texts(self, split: str = "train") -> Iterator[str]:
        """Texts of one split in order; the tokenizer is trained on those of `train`."""
        return (document.text for document in self.documents(split))

    def documents(self, split: str = "train") -> Iterator[Document]:
        """Documents of one split in order."""
        return self.read(self.select(split))

    def read(self, numbers: Iterable[int]) -> Iterator[Document]:
        """Documents with these indices, read one by one."""
        with open(self.folder / TEXT, "rb") as file:
            for number in numbers:
                entry = self.index[number]
                start = int(self.index["end"][number - 1]) if number else 0
                file.seek(start)
                origin = self.manifest["files"][int(entry["file"])]
                yield Document(
                    text=file.read(int(entry["end"]) - start).decode(),
                    source=origin["source"],
                    path=origin["path"],
                    license=self.manifest["licenses"][int(entry["license"])],
                    split=SPLITS[int(entry["split"])],
                )


def prepare_corpus(config: DataConfig, cache_dir: str | Path, progress: Progress | None = None) -> TextStore:
    """Read and clean the corpus of `config`, or open the one that an earlier run left in `cache_dir`.

    Raises DataError for a missing source or a corpus without text, StorageError for a full disk.
    """
    skips: SkipCounts = Counter()
    files = corpus_files(config, skips)
    key = _key(config, files)
    folder = Path(cache_dir) / f"corpus-{key[:16]}"
    if not folder.exists():
        total = sum(file.bytes for file in files)
        with new_folder(folder, needed_bytes=total) as partial:
            _Writer(partial, config, files, skips, key).write(progress)
    return open_store(folder)


def open_store(folder: Path) -> TextStore:
    """Open a corpus folder and check its files. Raises DataError naming a damaged one."""
    manifest = open_sealed(folder, kind=KIND, names=(TEXT, DOCUMENTS))
    index = load_index(folder / DOCUMENTS, INDEX, (folder / TEXT).stat().st_size)
    return TextStore(folder=folder, manifest=manifest, index=index)


def load_index(path: Path, dtype: np.dtype[Any], total: int) -> NDArray[Any]:
    """Load an index whose `end` column rises to `total`. Raises DataError for anything else."""
    try:
        index = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path} is no index: {error}; delete its folder and it is made again") from None
    ends = index["end"] if index.dtype == dtype and index.ndim == 1 else np.array([total + 1])
    if np.any(ends[1:] < ends[:-1]) or (int(ends[-1]) if len(ends) else 0) != total:
        raise DataError(f"{path} does not fit the data beside it; delete its folder and it is made again")
    return np.asarray(index)


def _key(config: DataConfig, files: list[CorpusFile]) -> str:
    """Hash of name, content and license of every file and of every option that changes the text."""
    options = {k: v for k, v in asdict(config).items() if k not in ("sources", "fim_rate")}
    listing = [(file.file.name, file.sha256, file.file.license) for file in files]
    return hashlib.sha256(json.dumps([FORMAT, options, listing]).encode()).hexdigest()


class _Writer:
    """Reads, deduplicates and splits in one pass; memory holds 17 bytes per document, not the text."""

    def __init__(
        self, folder: Path, config: DataConfig, files: list[CorpusFile], skips: SkipCounts, key: str
    ) -> None:
        self.folder, self.config, self.files, self.skips, self.key = folder, config, files, skips, key
        self.ends, self.origins, self.licenses, self.splits = array("Q"), array("I"), array("I"), array("B")
        self.license_numbers: dict[str | None, int] = {}
        self.heldout_bytes = 0

    def write(self, progress: Progress | None) -> None:
        bytes_done, total = 0, sum(file.bytes for file in self.files)
        with (
            open(self.folder / TEXT, "w+b") as out,
            Deduplicator(
                exact=self.config.drop_exact_duplicates,
                near=self.config.drop_near_duplicates,
                jaccard=self.config.near_duplicate_jaccard,
                spool_dir=self.folder,
            ) as deduplicator,
        ):
            for number, file in enumerate(self.files):
                for document in read_documents(file.file, self.config, self.skips):
                    if deduplicator.add(document.text) is Match.NONE:
                        self._append(out, document, number)
                bytes_done += file.bytes
                if progress:
                    progress(bytes_done, total)
            if not self.ends:
                raise DataError(_no_text(self.config, self.skips))
            if self.config.heldout_fraction and self.config.heldout_max_bytes and 1 not in self.splits:
                self._hold_out_end(out)
        index = np.zeros(len(self.ends), dtype=INDEX)
        index["end"], index["file"] = self.ends, self.origins
        index["license"], index["split"] = self.licenses, self.splits
        np.save(self.folder / DOCUMENTS, index, allow_pickle=False)
        manifest = corpus_manifest(
            self.files,
            index,
            licenses=list(self.license_numbers),
            duplicates={match.value: deduplicator.counts[match] for match in (Match.EXACT, Match.NEAR)},
            skips=self.skips,
        )
        if self.skips:
            log.warning("%d texts were skipped; the manifest says which and why", self.skips.total())
        seal(self.folder, {"kind": KIND, "format": FORMAT, "key": self.key, **manifest})

    def _append(self, out: BinaryIO, document: Document, number: int) -> None:
        data = document.text.encode()
        out.write(data)
        self.ends.append((self.ends[-1] if self.ends else 0) + len(data))
        self.origins.append(number)
        self.licenses.append(self.license_numbers.setdefault(document.license, len(self.license_numbers)))
        self.splits.append(self._is_heldout(data))
        self.heldout_bytes += len(data) * self.splits[-1]

    def _is_heldout(self, data: bytes) -> bool:
        """Return whether a document is held out: its hash decides, so new files move none."""
        share = int.from_bytes(hashlib.sha256(data).digest()[:8], "big") / 2.0**64
        fits = self.heldout_bytes + len(data) <= self.config.heldout_max_bytes
        return share < self.config.heldout_fraction and fits

    def _hold_out_end(self, out: BinaryIO) -> None:
        """Hold out the last lines of a corpus of few documents, when no hash chose one of them."""
        total = self.ends[-1]
        size = min(max(int(total * self.config.heldout_fraction), 1), self.config.heldout_max_bytes)
        number = next(i for i, end in enumerate(self.ends) if end > total - size)
        start = self.ends[number - 1] if number else 0
        out.seek(start)
        text = out.read(self.ends[number] - start)
        newline = text.rfind(b"\n", 0, total - size - start)
        if newline < 0:
            newline = text.find(b"\n")
        cut = start + newline + 1
        if newline >= 0 and start < cut < self.ends[number]:  # the cut is inside a document: make two of it
            for column in (self.origins, self.licenses, self.splits):
                column.insert(number, column[number])
            self.ends.insert(number, cut)
            number += 1
        elif number == 0:
            raise DataError(
                "the corpus is a single line, so nothing can be held out; add text or set heldout_fraction=0"
            )
        for late in range(number, len(self.splits)):
            self.splits[late] = 1
        out.seek(0, 2)


def _no_text(config: DataConfig, skips: SkipCounts) -> str:
    why = next((f"; {path}: {reason}" for (path, reason), _ in skips.most_common(1)), "")
    names = ", ".join(config.sources)
    return f"there is no text in {names}{why}; name sources with text, or set text_field to its column"
