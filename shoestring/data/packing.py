"""Packing of documents into rows of token ids; fill-in-the-middle.

As in DeepSeek-V3 (arXiv 2412.19437, section 4.1): documents are concatenated and rows cut from the stream,
with no mask between documents; one document in ten is rearranged as prefix, suffix, middle. Each document is
written as `bos ids eos` if a prompt at inference begins with bos, else as `ids eos`.
"""

import numpy as np
from numpy.typing import NDArray

from shoestring.data.shards import Shard, SpecialIds
from shoestring.errors import ConfigError

Ids = NDArray[np.int64]

IGNORE_INDEX = -100
"""A target that no loss counts (PyTorch's `ignore_index`); the kernels ignore every negative target."""


def frame(ids: NDArray[np.integer], special: SpecialIds) -> list[NDArray[np.integer]]:
    """Put bos, if there is one, before a document and eos after it; returns the segments in order."""
    return [_begin(special), ids, np.array([special.eos])]


def fill_in_the_middle(
    ids: NDArray[np.integer], special: SpecialIds, generator: np.random.Generator
) -> list[NDArray[np.integer]]:
    """Cut a document at two random places and order it as `bos begin prefix hole suffix end middle eos`.

    Returns segments as `frame` does, bos only if there is one. Raises ConfigError for a tokenizer without
    these special tokens.
    """
    if special.fim is None:
        raise ConfigError("fim_rate needs a tokenizer with fill-in-the-middle tokens; set fim_rate=0")
    begin, hole, end = special.fim
    first, second = np.sort(generator.integers(0, len(ids) + 1, size=2))
    return [
        _begin(special),
        np.array([begin]),
        ids[:first],
        np.array([hole]),
        ids[second:],
        np.array([end]),
        ids[first:second],
        np.array([special.eos]),
    ]


def _begin(special: SpecialIds) -> Ids:
    return np.array([] if special.bos is None else [special.bos], dtype=np.int64)


class Epoch:
    """One pass over a shard in a random order, cut into rows; any row can be read without those before it.

    Random numbers depend on (seed, epoch, document), so the same arguments always give the same rows. Memory:
    17 bytes per document and 8 per row.
    """

    def __init__(self, shard: Shard, *, seed: int, epoch: int, seq_len: int, fim_rate: float) -> None:
        self.shard, self.seed, self.epoch, self.seq_len = shard, seed, epoch, seq_len
        generator = np.random.default_rng([seed, epoch])
        self.order = generator.permutation(len(shard))
        self.fim_mask = generator.random(len(shard)) < fim_rate  # by document index
        framing = 1 if shard.special.bos is None else 2  # bos, eos
        lengths = np.diff(shard.ends, prepend=0) + framing + 3 * self.fim_mask  # begin, hole, end
        self.ends = np.cumsum(lengths[self.order])  # of each document in the stream
        # Rows come in a random order of their own: otherwise a long document fills many batches in a row.
        self.row_order = np.random.default_rng([seed, epoch, 0]).permutation(self.num_rows)

    @property
    def num_rows(self) -> int:
        """Number of whole rows; the end of the stream, shorter than a row, is left out of this epoch."""
        return max((int(self.ends[-1]) - 1) // self.seq_len, 0) if len(self.ends) else 0

    def row(self, number: int) -> Ids:
        """Row `number` of the stream; its last id is the first of the next row, so each id is a target once.

        # (seq_len + 1,)
        """
        start = number * self.seq_len
        place = int(np.searchsorted(self.ends, start, side="right"))
        segment_start = int(self.ends[place - 1]) if place else 0
        row, size = np.empty(self.seq_len + 1, dtype=np.int64), 0
        while size < len(row):
            for segment in self._segments(int(self.order[place])):
                part = segment[max(start + size - segment_start, 0) :][: len(row) - size]
                row[size : size + len(part)] = part
                size += len(part)
                segment_start += len(segment)
            place += 1
        return row

    def _segments(self, document: int) -> list[NDArray[np.integer]]:
        ids = self.shard.document(document)
        if not self.fim_mask[document]:
            return frame(ids, self.shard.special)
        generator = np.random.default_rng([self.seed, self.epoch, document + 1])
        return fill_in_the_middle(ids, self.shard.special, generator)
