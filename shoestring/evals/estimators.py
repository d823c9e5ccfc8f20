"""Estimators of one problem's score from its samples: unbiased pass@k, and maj@k."""

from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from math import comb
from typing import NamedTuple


class Sample(NamedTuple):
    """One answer to a problem."""

    is_right: bool
    vote: str | None
    """Its vote in a majority; None for an invalid answer, which has none."""


def pass_at_k(samples: int, right: int, k: int) -> Fraction:
    """The probability that a right one is among k of a problem's samples, drawn without replacement.

    Unbiased (arXiv 2107.03374, equation 1) and exact. Raises ValueError unless
    0 <= right <= samples and 1 <= k <= samples.
    """
    if not (0 <= right <= samples and 1 <= k <= samples):
        raise ValueError(f"pass@{k} of {right} right among {samples} samples is not defined")
    return 1 - Fraction(comb(samples - right, k), comb(samples, k))


def best_at_k(samples: Sequence[tuple[float, bool]], k: int) -> Fraction:
    """The probability that of k of a problem's samples the one with the highest score is right.

    `samples` are scores, such as a reward model's, and whether each is right. The k are drawn without
    replacement, and a tie is broken at random: both as exact expectations. Raises ValueError unless
    1 <= k <= samples.
    """
    count = len(samples)
    if not 1 <= k <= count:
        raise ValueError(f"best@{k} of {count} samples is not defined")
    groups: dict[float, list[bool]] = {}
    for score, is_right in samples:
        groups.setdefault(score, []).append(is_right)
    rest, total = count, Fraction(0)
    for score in sorted(groups, reverse=True):
        right = groups[score]
        ways = comb(rest, k) - comb(rest - len(right), k)  # subsets whose highest score is this one
        total += Fraction(ways * sum(right), len(right))
        rest -= len(right)
    return total / comb(count, k)


def majority(samples: Sequence[Sample]) -> Fraction:
    """The probability that the majority's answer is right; 0 without votes.

    Votes are counted without regard to rewards. A tie is broken at random among the leading answers, and an
    answer is right as often as a random one of its samples: both as exact expectations.
    """
    votes = Counter(sample.vote for sample in samples if sample.vote is not None)
    if not votes:
        return Fraction(0)
    most = max(votes.values())
    leading = [vote for vote, count in votes.items() if count == most]
    right = sum(sample.is_right for sample in samples if sample.vote in leading)
    return Fraction(right, most * len(leading))


def maj_at_k(samples: Sequence[Sample], k: int) -> Fraction:
    """The majority of k samples, averaged over disjoint blocks of k in the order in which they were drawn.

    Unbiased, since each block is an independent draw of k; samples after the last whole block are not used.
    Raises ValueError unless 1 <= k <= samples.
    """
    if not 1 <= k <= len(samples):
        raise ValueError(f"maj@{k} of {len(samples)} samples is not defined")
    starts = range(0, len(samples) - k + 1, k)
    return sum((majority(samples[start : start + k]) for start in starts), Fraction(0)) / len(starts)
