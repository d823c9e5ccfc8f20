"""Modified interpolated Kneser-Ney over token ids (Chen and Goodman 1998, section 3): only counts.

A document is the stream `begin ids end`; no n-gram crosses into the next one. The longest n-grams count how
often they occur, the shorter ones how many different ids stand before them, and those that begin a document,
which have nothing before them, how often they occur.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from shoestring.errors import DataError

Ids = NDArray[np.int64]
Floats = NDArray[np.float64]
NONE = -1
"""The number of an n-gram that does not occur in the counted text or reaches back over a beginning."""
FALLBACK = np.array([0.0, 0.5, 1.0, 1.5])
"""Discounts where a text is too small or too odd to estimate them (as KenLM's)."""


class Stream(NamedTuple):
    """Documents one after the other, each with its begin and end."""

    ids: Ids  # (N,)
    places: Ids  # (N,) position in the document; that of begin is 0


class Level(NamedTuple):
    """N-grams of one length as sorted keys: number of the context (the ids before the last) x V + last id."""

    keys: Ids  # (grams,)
    shares: Floats  # (grams,) discounted count over the sum of its context
    rests: Floats  # (contexts,) what the discounts leave to the shorter n-grams

    def numbers(self, keys: Ids) -> Ids:
        """Place of each key, or NONE."""
        places = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        return np.where(self.keys[places] == keys, places, NONE)


def stream(documents: Iterable[NDArray[np.integer]], begin: int, end: int) -> Stream:
    """Stream of documents of ids; `begin` is bos, or eos for a model without one."""
    parts = [np.concatenate(([begin], ids, [end])).astype(np.int64) for ids in documents]
    if not parts:
        raise DataError("there is no text to count n-grams in; set heldout_fraction under 1")
    return Stream(np.concatenate(parts), np.concatenate([np.arange(len(part)) for part in parts]))


def count(text: Stream, vocab_size: int, order: int = 5) -> list[Level]:
    """Levels of n-grams of 1 to `order` ids; memory is about 100 bytes x order per id."""
    keys: list[Ids] = []
    firsts: list[Ids] = []
    numbers: list[Ids] = []
    for _ in range(order):
        own = _keys(_contexts(numbers[-1] if numbers else None, text), text, vocab_size)
        unique, first, inverse = np.unique(own, return_index=True, return_inverse=True)
        invalid = int(unique[0] == NONE)  # the smallest key
        keys.append(unique[invalid:])
        firsts.append(first[invalid:])
        numbers.append(inverse - invalid)
    longest = numbers[-1][numbers[-1] != NONE]
    counts = [_different_before(text, n, numbers[n - 1], firsts[n]) for n in range(1, order)]
    counts.append(np.bincount(longest, minlength=len(keys[-1])))
    sizes = [1, *map(len, keys)]
    return [_level(*level, vocab_size) for level in zip(keys, counts, sizes[:-1], strict=True)]


def probabilities(levels: list[Level], text: Stream, vocab_size: int) -> Floats:
    """Probability of every id but the begins, given the ids before it in its document.  # (targets,)"""
    numbers, chances = None, np.full(len(text.ids), 1 / vocab_size)
    for level in levels:
        contexts = _contexts(numbers, text)
        numbers = level.numbers(_keys(contexts, text, vocab_size))
        own = np.where(numbers == NONE, 0.0, level.shares[numbers])
        chances = np.where(contexts == NONE, chances, own + level.rests[contexts] * chances)
    return chances[text.places > 0]


def _contexts(numbers: Ids | None, text: Stream) -> Ids:
    """Number of the n-gram before each id: one empty context for all at first.  # (N,)"""
    if numbers is None:
        return np.zeros_like(text.ids)
    before = np.concatenate(([NONE], numbers[:-1]))
    return np.where(text.places == 0, NONE, before)


def _keys(contexts: Ids, text: Stream, vocab_size: int) -> Ids:
    return np.where(contexts == NONE, NONE, contexts * vocab_size + text.ids)


def _different_before(text: Stream, length: int, numbers: Ids, firsts: Ids) -> Ids:
    """Number of different ids before each n-gram; `firsts` are places of all n-grams one id longer."""
    size = int(numbers.max()) + 1
    counts = np.bincount(numbers[firsts], minlength=size)
    if length == 1:  # begin alone is never predicted
        return counts
    return counts + np.bincount(numbers[text.places == length - 1], minlength=size)


def _level(keys: Ids, counts: Ids, size: int, vocab_size: int) -> Level:
    discounts = _discounts(counts)[np.minimum(counts, 3)]
    contexts = keys // vocab_size
    sums = np.bincount(contexts, weights=counts, minlength=size)
    discount_sums = np.bincount(contexts, weights=discounts, minlength=size)
    rests = np.divide(discount_sums, sums, out=np.ones(size), where=sums > 0)
    shares = (counts - discounts) / np.maximum(sums[contexts], 1)
    return Level(keys, shares, rests)


def _discounts(counts: Ids) -> Floats:
    """Discounts of a count of 0, 1, 2 and of 3 or more.  # (4,)"""
    once, twice, thrice, four = (int(np.count_nonzero(counts == times)) for times in (1, 2, 3, 4))
    if not all((once, twice, thrice, four)):
        return FALLBACK
    share = once / (once + 2 * twice)
    three = [1 - 2 * share * twice / once, 2 - 3 * share * thrice / twice, 3 - 4 * share * four / thrice]
    return np.array([0.0, *three]) if min(three) > 0 else FALLBACK
