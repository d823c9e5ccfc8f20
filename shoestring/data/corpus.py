"""Documents of a corpus with source and license, read from txt, md, py, jsonl and parquet files."""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from shoestring.data.folder import sha256_of
from shoestring.data.readers import read_rows
from shoestring.data.sources import SourceFile, find_files
from shoestring.errors import ConfigError, DataError

SPDX = re.compile(r"SPDX-License-Identifier:[ \t]*([\w.+() -]{1,100})")
MIN_DOCUMENT_BYTES = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class DataConfig:
    """Sources of a corpus, and how it is cleaned, split and tokenized."""

    sources: tuple[str, ...] = ("stdlib",)
    """Folders, files, globs, hub dataset ids (`org/name`), or `stdlib`: this Python's own library source."""
    text_field: str = "text"
    """The field (jsonl) or column (parquet) that holds the text."""
    license_field: str = "license"
    """The field or column that holds the license of a row; it may be absent."""
    max_document_bytes: int = 1 << 20
    """A longer text becomes several documents, cut at a blank line, so memory stays bounded."""
    drop_exact_duplicates: bool = True
    """Keep only the first of several documents that differ in white space at most."""
    drop_near_duplicates: bool = True
    """Keep only the first of several documents that share most of their word 5-grams (MinHash, verified)."""
    near_duplicate_jaccard: float = 0.8
    """Least Jaccard similarity of the 5-gram sets of near-duplicates; under 0.8 some are missed."""
    heldout_fraction: float = 0.02
    """Share of the documents, chosen by a hash of their text, that is kept out of training; 0 for none."""
    heldout_max_bytes: int = 10_000_000
    """Most bytes of text that are held out; all other documents are trained on."""
    fim_rate: float = 0.1
    """Share of the training documents rearranged for fill-in-the-middle (DeepSeek-V3, section 4.1: 0.1)."""

    def __post_init__(self) -> None:
        if not self.sources:
            raise ConfigError("sources is empty; name a folder, a file, a hub dataset or 'stdlib'")
        for name in ("near_duplicate_jaccard", "heldout_fraction", "fim_rate"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ConfigError(f"{name} = {getattr(self, name)} is not between 0 and 1")
        if self.heldout_fraction > 0.5:
            raise ConfigError(f"heldout_fraction = {self.heldout_fraction} is over 0.5")
        if self.max_document_bytes < MIN_DOCUMENT_BYTES:
            raise ConfigError(f"max_document_bytes = {self.max_document_bytes} is under {MIN_DOCUMENT_BYTES}")
        if self.heldout_max_bytes < 0:
            raise ConfigError(f"heldout_max_bytes = {self.heldout_max_bytes} is negative")


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """One text with its source; `split` is train or heldout, and empty until duplicates are removed."""

    text: str
    source: str
    path: str
    license: str | None
    split: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CorpusFile:
    """A file of the corpus with its size and hash, as written in the manifest."""

    file: SourceFile
    bytes: int
    sha256: str


SkipCounts = Counter[tuple[str, str]]
"""Number of texts left out, by file and reason."""


def corpus_files(config: DataConfig, skips: SkipCounts) -> list[CorpusFile]:
    """All files of all sources with their hashes. Raises DataError for a source that is missing or empty."""
    result = []
    for source in config.sources:
        files = find_files(source)
        if not files:
            raise DataError(f"{source} holds no .txt, .md, .py, .jsonl or .parquet file")
        for file in files:
            try:
                size = file.path.stat().st_size
                result.append(CorpusFile(file=file, bytes=size, sha256=sha256_of(file.path)))
            except OSError as error:
                skips[file.name, error.strerror or "cannot be read"] += 1
    return result


def read_documents(file: SourceFile, config: DataConfig, skips: SkipCounts) -> Iterator[Document]:
    """Documents of one file in order; texts that cannot be read are counted in `skips`."""
    for row in read_rows(
        file.path,
        text_field=config.text_field,
        license_field=config.license_field,
        limit_bytes=config.max_document_bytes,
    ):
        problem = row.problem or ("" if row.text.strip() else "empty")
        if problem:
            skips[file.name, problem] += 1
            continue
        header = SPDX.search(row.text, 0, 2_000)
        yield Document(
            text=row.text,
            source=file.source,
            path=file.name,
            license=row.license or (header[1].strip() if header else file.license),
        )
