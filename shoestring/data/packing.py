"""Documents -> rows of ids, positions, targets; fill-in-the-middle.

As DeepSeek-V3 (arXiv 2412.19437, section 4.1): documents are concatenated and rows cut from the stream, with
no mask between documents; one document in ten is rearranged as prefix, suffix, middle. Each document is
framed as `bos ids eos`, because a prompt at inference begins with bos too.
"""

import numpy as np
from numpy.typing import NDArray

from shoestring.data.shards import Shard, SpecialIds
from shoestring.errors import ConfigError

Ids = NDArray[np.int64]

IGNORE_INDEX = -100
"""A target that no loss counts (PyTorch's `ignore_index`); the kernels ignore every negative target."""


def framed(ids: NDArray[np.integer], special: SpecialIds) -> list[NDArray[np.integer]]:
    """A document as the stream holds it, as segments to be read one after the other: bos, ids, eos."""
    return [np.array([special.bos]), ids, np.array([special.eos])]


def fill_in_the_middle(
    ids: NDArray[np.integer], special: SpecialIds, generator: np.random.Generator
) -> list[NDArray[np.integer]]:
    """A document cut at two random places and framed as `bos begin prefix hole suffix end middle eos`.

    Segments as in `framed`, three ids more. Raises ConfigError if the tokenizer has no such special tokens.
    """
    if special.fim is None:
        raise ConfigError("fim_rate needs a tokenizer with fill-in-the-middle tokens; set fim_rate=0")
    begin, hole, end = special.fim
    first, second = np.sort(generator.integers(0, len(ids) + 1, size=2))
    return [
        np.array([special.bos, begin]),
        ids[:first],
        np.array([hole]),
        ids[second:],
        np.array([end]),
        ids[first:second],
        np.array([special.eos]),
    ]


class Epoch:
    """One pass over a shard in a shuffled order, cut into rows; any row is had without the ones before it.

    Everything is drawn from (seed, epoch, document), so the same arguments always give the same rows. Memory:
    17 bytes per document and 8 per row.
    """

    def __init__(self, shard: Shard, *, seed: int, epoch: int, seq_len: int, fim_rate: float) -> None:
        self.shard, self.seed, self.epoch, self.seq_len = shard, seed, epoch, seq_len
        generator = np.random.default_rng([seed, epoch])
        self.order = generator.permutation(len(shard))
        self.rearranged = generator.random(len(shard)) < fim_rate  # by document number
        lengths = np.diff(shard.ends, prepend=0) + 2 + 3 * self.rearranged  # bos, eos; begin, hole, end
        self.ends = np.cumsum(lengths[self.order])  # of each document in the stream
        # Rows are visited in an order of their own: else a long document fills many batches in succession.
        self.row_order = np.random.default_rng([seed, epoch, 0]).permutation(self.num_rows)

    @property
    def num_rows(self) -> int:
        """Whole rows; the rest of the stream, shorter than a row, is left out of this epoch."""
        return max((int(self.ends[-1]) - 1) // self.seq_len, 0) if len(self.ends) else 0

    def row(self, number: int) -> Ids:
        """Row `number` of the stream; its last id is the next one's first: each id but one is a target once.

        # (seq_len + 1,)
        """
        start = number * self.seq_len
        place = int(np.searchsorted(self.ends, start, side="right"))
        at = int(self.ends[place - 1]) if place else 0
        row, filled = np.empty(self.seq_len + 1, dtype=np.int64), 0
        while filled < len(row):
            for segment in self._segments(int(self.order[place])):
                part = segment[max(start + filled - at, 0) :][: len(row) - filled]
                row[filled : filled + len(part)] = part
                filled += len(part)
                at += len(segment)
            place += 1
        return row

    def positions(self, number: int) -> Ids:
        """Each input's place in its document's part of row `number`: 0 where a document or the row begins.

        # (seq_len,)
        """
        start = number * self.seq_len
        stream = np.arange(start, start + self.seq_len)
        places = np.searchsorted(self.ends, stream, side="right")
        begins = np.concatenate(([0], self.ends))[places]
        return stream - np.maximum(begins, start)

    def _segments(self, document: int) -> list[NDArray[np.integer]]:
        ids = self.shard.document(document)
        if not self.rearranged[document]:
            return framed(ids, self.shard.special)
        generator = np.random.default_rng([self.seed, self.epoch, document + 1])
        return fill_in_the_middle(ids, self.shard.special, generator)
