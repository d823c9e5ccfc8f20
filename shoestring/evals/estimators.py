"""Estimators of one problem's score from its graded samples: pass@k without bias, maj@k without the key."""

from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from math import comb
from typing import NamedTuple


class Graded(NamedTuple):
    """One sample of a problem."""

    is_right: bool
    vote: str | None
    """What it votes for in a majority; None is an invalid answer, which does not vote."""


def pass_at_k(samples: int, right: int, k: int) -> Fraction:
    """The chance that k of a problem's samples, drawn without replacement, hold a right one.

    Unbiased (arXiv 2107.03374, equation 1) and computed exactly. Raises ValueError unless
    0 <= right <= samples and 1 <= k <= samples.
    """
    if not (0 <= right <= samples and 1 <= k <= samples):
        raise ValueError(f"pass@{k} of {right} right among {samples} samples is not defined")
    return 1 - Fraction(comb(samples - right, k), comb(samples, k))


def majority(samples: Sequence[Graded]) -> Fraction:
    """The chance that the majority's answer is right; 0 when nobody votes.

    Votes are counted without looking at what is right. A tie is broken by lot among the answers that lead,
    and an answer is as right as one of its samples, drawn by lot too: both as exact expectations.
    """
    votes = Counter(sample.vote for sample in samples if sample.vote is not None)
    if not votes:
        return Fraction(0)
    most = max(votes.values())
    leading = [vote for vote, count in votes.items() if count == most]
    right = sum(sample.is_right for sample in samples if sample.vote in leading)
    return Fraction(right, most * len(leading))


def maj_at_k(samples: Sequence[Graded], k: int) -> Fraction:
    """The majority of k samples, averaged over the disjoint blocks of k in the order they were drawn.

    Unbiased, since each block is a fresh draw of k; what is left over after the last whole block is unused.
    Raises ValueError unless 1 <= k <= samples.
    """
    if not 1 <= k <= len(samples):
        raise ValueError(f"maj@{k} of {len(samples)} samples is not defined")
    starts = range(0, len(samples) - k + 1, k)
    return sum((majority(samples[start : start + k]) for start in starts), Fraction(0)) / len(starts)
