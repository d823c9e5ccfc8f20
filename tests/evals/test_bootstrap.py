"""Intervals: what they cover, how they repeat."""

import numpy as np
import pytest

from shoestring.evals.bootstrap import interval


def test_an_interval_is_as_wide_as_theory_says_and_repeats():
    values = np.random.default_rng(1).normal(3.0, 2.0, size=400)
    low, high = interval(values)
    error = values.std() / 20
    assert low == pytest.approx(values.mean() - 1.96 * error, abs=0.15 * error)
    assert high == pytest.approx(values.mean() + 1.96 * error, abs=0.15 * error)
    assert interval(values) == (low, high)
    assert interval(values, seed=1) != (low, high)


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    draws = np.random.default_rng(2).random((60, 100)) < 0.7
    covered = sum(low <= 0.7 <= high for low, high in (interval(row) for row in draws))
    assert covered >= 52


def test_equal_values_have_no_width_and_none_no_interval():
    assert interval([1.0] * 5) == (1.0, 1.0)
    with pytest.raises(ValueError, match="at least one"):
        interval([])
