"""The cleaned corpus on disk: documents without duplicates, split by document, one text file and an index.

Everything later (tokenizer training, tokenization, evaluation) reads this and not the sources, so duplicates
are looked for once and what is held out cannot leak. Files: `text.bin` (UTF-8, documents end to end),
`documents.npy` (INDEX), `manifest.json`.
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

from shoestring.data.corpus import CorpusFile, DataConfig, Document, Skipped, corpus_files, read
from shoestring.data.dedup import Deduplicator, Verdict
from shoestring.data.folder import open_sealed, seal
from shoestring.data.manifest import SPLITS, corpus_manifest, sizes_of
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
    """A corpus after cleaning; `index` has one INDEX entry per document, `manifest` says what went in."""

    folder: Path
    manifest: dict[str, Any]
    index: NDArray[Any]

    def select(self, split: str) -> NDArray[np.int64]:
        """The numbers of a split's documents, in order.  # (documents,)"""
        return np.flatnonzero(self.index["split"] == SPLITS.index(split)).astype(np.int64)

    def sizes(self) -> NDArray[np.int64]:
        """UTF-8 bytes of every document.  # (documents,)"""
        return sizes_of(self.index)

    def texts(self, split: str = "train") -> Iterator[str]:
        """The texts of one split in order; the tokenizer is trained on these."""
        return (document.text for document in self.documents(split))

    def documents(self, split: str = "train") -> Iterator[Document]:
        """The documents of one split in order."""
        return self.read(self.select(split))

    def read(self, numbers: Iterable[int]) -> Iterator[Document]:
        """The documents of these numbers, each read as it is asked for."""
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


def documents(config: DataConfig, cache_dir: str | Path, progress: Progress | None = None) -> TextStore:
    """The corpus of `config`, read and cleaned now or found in `cache_dir` from an earlier run.

    Raises DataError for a source that is not there or a corpus without text, StorageError for a full disk.
    """
    skipped: Skipped = Counter()
    files = corpus_files(config, skipped)
    key = _key(config, files)
    folder = Path(cache_dir) / f"corpus-{key[:16]}"
    if not folder.exists():
        total = sum(file.bytes for file in files)
        with new_folder(folder, needed_bytes=total) as partial:
            _Writer(partial, config, files, skipped, key).write(progress)
    return open_store(folder)


def open_store(folder: Path) -> TextStore:
    """A finished corpus folder, its files verified; raises DataError naming a damaged one."""
    manifest = open_sealed(folder, kind=KIND, names=(TEXT, DOCUMENTS))
    index = load_index(folder / DOCUMENTS, INDEX, (folder / TEXT).stat().st_size)
    return TextStore(folder=folder, manifest=manifest, index=index)


def load_index(path: Path, dtype: np.dtype[Any], total: int) -> NDArray[Any]:
    """An index whose `end` column rises to `total`; raises DataError for anything else."""
    try:
        index = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path} is no index: {error}; delete its folder and it is made again") from None
    ends = index["end"] if index.dtype == dtype and index.ndim == 1 else np.array([total + 1])
    if np.any(ends[1:] < ends[:-1]) or (int(ends[-1]) if len(ends) else 0) != total:
        raise DataError(f"{path} does not fit the data beside it; delete its folder and it is made again")
    return np.asarray(index)


def _key(config: DataConfig, files: list[CorpusFile]) -> str:
    """Changes with every file's name, content and license and with every option that shapes the text."""
    options = {k: v for k, v in asdict(config).items() if k not in ("sources", "fim_rate")}
    listing = [(file.file.name, file.sha256, file.file.license) for file in files]
    return hashlib.sha256(json.dumps([FORMAT, options, listing]).encode()).hexdigest()


class _Writer:
    """Reads, deduplicates and splits in one pass; memory holds 17 bytes a document, not the text."""

    def __init__(
        self, folder: Path, config: DataConfig, files: list[CorpusFile], skipped: Skipped, key: str
    ) -> None:
        self.folder, self.config, self.files, self.skipped, self.key = folder, config, files, skipped, key
        self.ends, self.origins, self.licenses, self.splits = array("Q"), array("I"), array("I"), array("B")
        self.license_numbers: dict[str | None, int] = {}
        self.heldout_bytes = 0

    def write(self, progress: Progress | None) -> None:
        done, total = 0, sum(file.bytes for file in self.files)
        with (
            open(self.folder / TEXT, "w+b") as out,
            Deduplicator(
                exact=self.config.drop_exact_duplicates,
                near=self.config.drop_near_duplicates,
                jaccard=self.config.near_duplicate_jaccard,
                spool_dir=self.folder,
            ) as seen,
        ):
            for number, file in enumerate(self.files):
                for document in read(file.file, self.config, self.skipped):
                    if seen.add(document.text) is Verdict.NEW:
                        self._append(out, document, number)
                done += file.bytes
                if progress:
                    progress(done, total)
            if not self.ends:
                raise DataError(_no_text(self.config, self.skipped))
            if self.config.heldout_fraction and self.config.heldout_max_bytes and 1 not in self.splits:
                self._hold_out_the_end(out)
        index = np.zeros(len(self.ends), dtype=INDEX)
        index["end"], index["file"] = self.ends, self.origins
        index["license"], index["split"] = self.licenses, self.splits
        np.save(self.folder / DOCUMENTS, index, allow_pickle=False)
        manifest = corpus_manifest(
            self.files,
            index,
            licenses=list(self.license_numbers),
            duplicates={v.value: seen.counts[v] for v in (Verdict.EXACT, Verdict.NEAR)},
            skipped=self.skipped,
        )
        if self.skipped:
            log.warning("%d texts were skipped; the manifest names them", self.skipped.total())
        seal(self.folder, {"kind": KIND, "format": FORMAT, "key": self.key, **manifest})

    def _append(self, out: BinaryIO, document: Document, number: int) -> None:
        data = document.text.encode()
        out.write(data)
        self.ends.append((self.ends[-1] if self.ends else 0) + len(data))
        self.origins.append(number)
        known = self.license_numbers.setdefault(document.license, len(self.license_numbers))
        self.licenses.append(known)
        self.splits.append(self._is_heldout(data))
        self.heldout_bytes += len(data) * self.splits[-1]

    def _is_heldout(self, data: bytes) -> bool:
        """By a hash of the text alone: adding files to a corpus moves no document to the other side."""
        share = int.from_bytes(hashlib.sha256(data).digest()[:8], "big") / 2.0**64
        fits = self.heldout_bytes + len(data) <= self.config.heldout_max_bytes
        return share < self.config.heldout_fraction and fits

    def _hold_out_the_end(self, out: BinaryIO) -> None:
        """No document's hash was drawn (few, large documents): the corpus's last lines are held out."""
        total = self.ends[-1]
        wanted = min(max(int(total * self.config.heldout_fraction), 1), self.config.heldout_max_bytes)
        number = next(i for i, end in enumerate(self.ends) if end > total - wanted)
        start = self.ends[number - 1] if number else 0
        out.seek(start)
        text = out.read(self.ends[number] - start)
        newline = text.rfind(b"\n", 0, total - wanted - start)
        if newline < 0:
            newline = text.find(b"\n")
        cut = start + newline + 1
        if newline >= 0 and start < cut < self.ends[number]:  # part of it stays: cut it in two
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


def _no_text(config: DataConfig, skipped: Skipped) -> str:
    why = next((f"; {path}: {reason}" for (path, reason), _ in skipped.most_common(1)), "")
    names = ", ".join(config.sources)
    return f"no text in {names}{why}; name sources with text, or set text_field to its column"
