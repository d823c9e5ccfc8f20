"""How sure a mean over problems is: seeded bootstrap intervals."""

from collections.abc import Sequence

import numpy as np

RESAMPLES = 5000
CONFIDENCE = 0.95
AT_ONCE = 1 << 19
"""Draws held in memory together."""


def interval(values: Sequence[float], *, seed: int = 0) -> tuple[float, float]:
    """The percentile bootstrap's 95% interval of the mean: problems are drawn anew, with replacement.

    `values` has one entry per problem, so what one problem's samples have in common widens the interval. When
    all values are equal it has no width: the bootstrap knows nothing of problems that were not drawn.
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
