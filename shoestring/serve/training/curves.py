"""The curves of a stage: each figure over the steps, in as many points as a chart has room for."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

FIGURES = (
    *("reward", "accuracy", "eval_accuracy", "loss", "bits_per_byte", "heldout_bits_per_byte"),
    *("answer_tokens", "truncated", "entropy", "kl", "grad_norm", "lr", "tokens_per_s", "samples_per_s"),
)
"""Those that the page has words for."""
ALL_FIGURES = (
    *FIGURES,
    "rewards/accuracies",
    "heldout_rewards/accuracies",
    "rewards/margins",
    "heldout_loss",
)
MAX_POINTS = 1000

Point = tuple[int, float]


class Curves:
    """Curves that grow. Beyond MAX_POINTS every second point goes, and from then on of every two new ones."""

    def __init__(self, figures: Sequence[str] = FIGURES) -> None:
        self._figures = figures
        self.points: dict[str, list[Point]] = {}
        self._strides: dict[str, int] = {}
        self._counts: dict[str, int] = {}

    def add(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Add the figures of rows."""
        for row in rows:
            for name in self._figures:
                value = row.get(name)
                if isinstance(value, int | float) and not isinstance(value, bool) and _is_finite(value):
                    self._add(name, (row["step"], float(value)))

    def _add(self, name: str, point: Point) -> None:
        points, count = self.points.setdefault(name, []), self._counts.get(name, 0)
        self._counts[name] = count + 1
        if count % self._strides.get(name, 1):
            return
        points.append(point)
        if len(points) > MAX_POINTS:
            self.points[name] = points[::2]
            self._strides[name] = 2 * self._strides.get(name, 1)


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer beyond every float
        return False
