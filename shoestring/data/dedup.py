"""Exact and near-duplicate removal: MinHash over word 5-grams, verified by their true Jaccard similarity.

One pass keeps the first document of each group. Work and memory grow linearly with the corpus: about 5 kB of
memory per document kept (more than about ten million documents need a tool for clusters) and 4 bytes per
5-gram in a temporary file, which stays in memory up to 64 MiB. Method: Broder 1997; bands as in Leskovec,
Rajaraman, Ullman, "Mining of Massive Datasets", chapter 3.
"""

import hashlib
import re
import tempfile
import zlib
from enum import Enum
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

SHINGLE_WORDS = 5
BANDS, ROWS = 25, 5  # at Jaccard 0.8 a pair shares no band with probability (1 - 0.8**5)**25 = 5e-5
BUCKET_DOCUMENTS = (
    32  # a band that more documents share is boilerplate and is not compared: work stays linear
)
SPOOL_BYTES = 64 << 20
# Chinese and Japanese put no space between words, Korean rarely: each character counts as a word.
CJK = "\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
WORD = re.compile(f"[{CJK}]|[^\\W{CJK}]+|[^\\w\\s]")

Hashes = NDArray[np.uint32]


class Match(Enum):
    """Kind of match between a document and those before it."""

    NONE = "none"
    EXACT = "exact"
    NEAR = "near"


class Deduplicator:
    """Finds out for each document in turn whether an equal or nearly equal one came before."""

    def __init__(
        self, *, exact: bool = True, near: bool = True, jaccard: float = 0.8, spool_dir: Path | None = None
    ) -> None:
        self.exact, self.near, self.threshold = exact, near, jaccard
        self.counts = dict.fromkeys(Match, 0)
        generator = np.random.default_rng(0)
        self._factors = generator.integers(1 << 63, size=BANDS * ROWS, dtype=np.uint64) | np.uint64(1)
        self._terms = generator.integers(1 << 63, size=BANDS * ROWS, dtype=np.uint64)
        self._digests: set[bytes] = set()
        self._buckets: dict[bytes, list[int]] = {}
        self._ends = [0]  # ends of each document's 5-grams in the spool, counted in 5-grams
        self._spool = tempfile.SpooledTemporaryFile(  # noqa: SIM115 - closed by __exit__
            max_size=SPOOL_BYTES, dir=None if spool_dir is None else str(spool_dir)
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._spool.close()

    def add(self, text: str) -> Match:
        """Compare `text` with the documents before it, and remember it if it matches none."""
        match = self._match(text)
        self.counts[match] += 1
        return match

    def _match(self, text: str) -> Match:
        if self.exact:
            digest = hashlib.sha256(" ".join(text.split()).encode()).digest()
            if digest in self._digests:
                return Match.EXACT
        if self.near:
            shingles = shingle_hashes(text)
            keys = self._band_keys(shingles)
            candidates = sorted({index for key in keys for index in self._buckets.get(key, ())})
            if any(jaccard(shingles, self._recall(index)) >= self.threshold for index in candidates):
                return Match.NEAR
            self._remember(shingles, keys)
        if self.exact:
            self._digests.add(digest)
        return Match.NONE

    def _band_keys(self, shingles: Hashes) -> list[bytes]:
        """One short key per band of the MinHash signature; documents that share a key are compared."""
        signature = np.full(BANDS * ROWS, 0xFFFFFFFF, dtype=np.uint64)
        for start in range(0, len(shingles), 4096):  # 4096 x 125 x 8 bytes = 4 MB at a time
            part = shingles[start : start + 4096, None].astype(np.uint64)
            hashes = (part * self._factors + self._terms) >> np.uint64(32)  # multiply-shift hashing
            np.minimum(signature, hashes.min(axis=0), out=signature)
        bands = signature.astype(np.uint32).reshape(BANDS, ROWS)
        return [
            hashlib.blake2b(bytes([i]) + band.tobytes(), digest_size=8).digest()
            for i, band in enumerate(bands)
        ]

    def _remember(self, shingles: Hashes, keys: list[bytes]) -> None:
        for key in keys:
            bucket = self._buckets.setdefault(key, [])
            if len(bucket) < BUCKET_DOCUMENTS:
                bucket.append(len(self._ends) - 1)
        self._spool.seek(4 * self._ends[-1])
        self._spool.write(shingles.tobytes())
        self._ends.append(self._ends[-1] + len(shingles))

    def _recall(self, index: int) -> Hashes:
        start, end = self._ends[index], self._ends[index + 1]
        self._spool.seek(4 * start)
        return np.frombuffer(self._spool.read(4 * (end - start)), dtype=np.uint32)


def shingle_hashes(text: str) -> Hashes:
    """Sorted distinct 32-bit hashes of every 5 words in a row; a shorter text has one hash.  # (S,)"""
    words = WORD.findall(text.lower())
    crcs = np.fromiter((zlib.crc32(word.encode()) for word in words), dtype=np.uint64, count=len(words))
    width = min(SHINGLE_WORDS, len(crcs))
    hashes = np.zeros(max(len(crcs) - width + 1, 1), dtype=np.uint64)
    for offset in range(width):
        hashes = (hashes ^ crcs[offset : offset + len(hashes)]) * np.uint64(0x9E3779B97F4A7C15)
        hashes ^= hashes >> np.uint64(29)  # multiplication alone never moves high bits down
    return np.unique((hashes >> np.uint64(32)).astype(np.uint32))


def jaccard(a: Hashes, b: Hashes) -> float:
    """Jaccard similarity of two sets, which are sorted arrays of distinct values: shared over all members."""
    if min(len(a), len(b)) == 0:
        return 0.0
    both = np.concatenate((a, b))
    both.sort(kind="stable")
    num_shared = int(np.count_nonzero(both[1:] == both[:-1]))
    return num_shared / (len(both) - num_shared)
