"""Exact and near-duplicate removal: MinHash over word 5-grams, verified by their true Jaccard similarity.

One pass, the first of each group stays. Work and memory grow linearly with the corpus: about 5 kB of memory
per kept document (a corpus beyond some ten million documents wants a cluster tool first) and 4 bytes per
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
BUCKET_DOCUMENTS = 32  # a band shared by more kept documents (boilerplate) is no evidence: keeps work linear
SPOOL_BYTES = 64 << 20
# Chinese, Japanese and Korean put no space between words: there each character counts as one.
CJK = "\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
WORD = re.compile(f"[{CJK}]|[^\\W{CJK}]+|[^\\w\\s]")

Hashes = NDArray[np.uint32]


class Verdict(Enum):
    """What a document is to those before it."""

    NEW = "new"
    EXACT = "exact"
    NEAR = "near"


class Deduplicator:
    """Tells for each document in turn whether an equal or nearly equal one was kept before."""

    def __init__(
        self, *, exact: bool = True, near: bool = True, jaccard: float = 0.8, spool_dir: Path | None = None
    ) -> None:
        self.exact, self.near, self.threshold = exact, near, jaccard
        self.counts = dict.fromkeys(Verdict, 0)
        generator = np.random.default_rng(0)
        self._factors = generator.integers(1 << 63, size=BANDS * ROWS, dtype=np.uint64) | np.uint64(1)
        self._terms = generator.integers(1 << 63, size=BANDS * ROWS, dtype=np.uint64)
        self._digests: set[bytes] = set()
        self._buckets: dict[bytes, list[int]] = {}
        self._ends = [0]  # of each kept document's 5-grams in the spool, counted in 5-grams
        self._spool = tempfile.SpooledTemporaryFile(  # noqa: SIM115 - closed by __exit__
            max_size=SPOOL_BYTES, dir=None if spool_dir is None else str(spool_dir)
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *unused: object) -> None:
        self._spool.close()

    def add(self, text: str) -> Verdict:
        """Judge `text`; it is remembered if it is new."""
        verdict = self._judge(text)
        self.counts[verdict] += 1
        return verdict

    def _judge(self, text: str) -> Verdict:
        if self.exact:
            digest = hashlib.sha256(" ".join(text.split()).encode()).digest()
            if digest in self._digests:
                return Verdict.EXACT
        if self.near:
            shingles = shingle_hashes(text)
            keys = self._band_keys(shingles)
            candidates = sorted({index for key in keys for index in self._buckets.get(key, ())})
            if any(jaccard(shingles, self._recall(index)) >= self.threshold for index in candidates):
                return Verdict.NEAR
            self._remember(shingles, keys)
        if self.exact:
            self._digests.add(digest)
        return Verdict.NEW

    def _band_keys(self, shingles: Hashes) -> list[bytes]:
        """One short key per band of the document's MinHash signature; documents meet where keys are equal."""
        signature = np.full(BANDS * ROWS, 0xFFFFFFFF, dtype=np.uint64)
        for start in range(0, len(shingles), 4096):  # 4096 x 125 x 8 bytes = 4 MB at a time
            part = shingles[start : start + 4096, None].astype(np.uint64)
            mixed = (part * self._factors + self._terms) >> np.uint64(32)  # multiply-shift hashing
            np.minimum(signature, mixed.min(axis=0), out=signature)
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
    """Sorted, distinct 32-bit hashes of the text's runs of 5 words; a shorter text is one run.  # (S,)"""
    words = WORD.findall(text.lower())
    hashes = np.fromiter((zlib.crc32(word.encode()) for word in words), dtype=np.uint64, count=len(words))
    width = min(SHINGLE_WORDS, len(hashes))
    mixed = np.zeros(max(len(hashes) - width + 1, 1), dtype=np.uint64)
    for offset in range(width):
        mixed = (mixed ^ hashes[offset : offset + len(mixed)]) * np.uint64(0x9E3779B97F4A7C15)
        mixed ^= mixed >> np.uint64(29)  # multiplication alone never moves high bits down
    return np.unique((mixed >> np.uint64(32)).astype(np.uint32))


def jaccard(left: Hashes, right: Hashes) -> float:
    """Shared over all members of two sets given as sorted distinct arrays."""
    if min(len(left), len(right)) == 0:
        return 0.0
    both = np.concatenate((left, right))
    both.sort(kind="stable")
    shared = int(np.count_nonzero(both[1:] == both[:-1]))
    return shared / (len(both) - shared)
