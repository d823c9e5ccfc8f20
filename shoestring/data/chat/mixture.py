"""Sources of a mixture: each a file, folder or data set with a weight and the names of its columns."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from shoestring.data.forms.fields import check_columns
from shoestring.errors import ConfigError

MAX_WEIGHT = 1000.0


@dataclass(frozen=True, kw_only=True)
class DataSource:
    """One source of conversations."""

    path: str
    """A file, a folder, a pattern, or a data set of the hub: org/name, org/name@revision, org/name:split."""
    weight: float = 1.0
    """Passes over its conversations in an epoch: 2 takes each twice, 0.5 half of them, then the rest."""
    columns: dict[str, str] = field(default_factory=dict)
    """Column of this source for each of our names: {prompt = "question", completion = "answer"}."""

    def __post_init__(self) -> None:
        if not self.path:
            raise ConfigError("a source of data has no path; name a file, a folder or org/name")
        if not 0.0 < self.weight <= MAX_WEIGHT:
            raise ConfigError(
                f"weight = {self.weight} of {self.path} is not over 0 and at most {MAX_WEIGHT:g}"
            )
        check_columns(self.columns)


def sources(
    data: Sequence[str | Path | DataSource], columns: Mapping[str, str] | None = None
) -> list[DataSource]:
    """Every entry of a recipe's `data` as a source: a name alone has weight 1, and `columns` for its own."""
    every = [entry if isinstance(entry, DataSource) else DataSource(path=str(entry)) for entry in data]
    return [source if source.columns else replace(source, columns=dict(columns or {})) for source in every]


def draw(
    numbers: NDArray[np.int64],
    source_of: NDArray[np.int64],
    weights: Sequence[float],
    *,
    seed: int,
    epoch: int,
) -> NDArray[np.int64]:
    """The items of one epoch, sorted: `numbers` with those of each source as often as its weight says.

    Over the epochs a source of `n` items is gone through again and again, each time in another order, and an
    epoch takes the next `weight * n` of that: none comes again before all others of its source have come.
    """
    parts = []
    for source, weight in enumerate(weights):
        own = numbers[source_of[numbers] == source]
        parts.append(own if weight == 1.0 else _stretch(own, weight, [seed, source], epoch))
    return np.sort(np.concatenate(parts))


def _stretch(own: NDArray[np.int64], weight: float, seeds: list[int], epoch: int) -> NDArray[np.int64]:
    """Items of an epoch in the endless sequence of shuffled passes over a source."""
    count = len(own)
    start, end = (math.floor(step * weight * count + 0.5) for step in (epoch, epoch + 1))
    parts = [own[:0]]
    for turn in range(start // max(count, 1), -(-end // max(count, 1))):
        order = np.random.default_rng([*seeds, turn]).permutation(count)
        parts.append(own[order[max(0, start - turn * count) : end - turn * count]])
    return np.concatenate(parts)
