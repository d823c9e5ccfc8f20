"""Confidence intervals of a mean over problems, by a seeded bootstrap."""

from collections.abc import Sequence

import numpy as np

RESAMPLES = 5000
CONFIDENCE = 0.95
AT_ONCE = 1 << 19
"""Most draws in memory at one time."""


def interval(values: Sequence[float], *, seed: int = 0) -> tuple[float, float]:
    """The 95% interval of the mean by the percentile bootstrap: problems are resampled with replacement.

    `values` has one entry per problem, so correlation between samples of one problem widens the interval.
    Equal values give an interval without width: the bootstrap knows only the problems in `values`.
    Raises ValueError without values.
    """
    if not len(values):
        raise ValueError("an interval needs at least one problem")
    numbers = np.asarray(values, dtype=np.float64)
    generator, count = np.random.default_rng(seed), len(numbers)
    rows = max(1, AT_ONCE // count)
    means = [
        numbers[generator.integers(0, count, (min(rows, RESAMPLES - start), count))].mean(axis=1)
        for start in range(0, RESAMPLES, rows)
    ]
    low, high = np.quantile(np.concatenate(means), [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)
