"""Curves in as many points as a chart has room for."""

import math
from itertools import pairwise

from shoestring.serve.training.curves import MAX_POINTS, Curves


def test_numbers_alone_are_points():
    curves = Curves()
    rows = [
        {"loss": 1},
        {"loss": "NaN"},
        {"loss": math.inf},
        {"loss": True},
        {"loss": None},
        {"loss": 10**400},
    ]
    curves.add([{"step": step, "other": 1.0, **row} for step, row in enumerate(rows)])
    curves.add([{"step": 9, "loss": 0.5, "kl": 0}])
    assert curves.points == {"loss": [(0, 1.0), (9, 0.5)], "kl": [(9, 0.0)]}


def test_a_long_curve_keeps_its_shape():
    curves = Curves()
    for step in range(100_000):
        curves.add([{"step": step, "loss": step / 2}])
    points = curves.points["loss"]
    assert MAX_POINTS / 2 <= len(points) <= MAX_POINTS
    steps = [step for step, _ in points]
    assert len({b - a for a, b in pairwise(steps)}) == 1
    assert steps[0] == 0
    assert steps[-1] > 99_000
    assert all(value == step / 2 for step, value in points)
