"""A picture of a run's curves, drawn from its metrics.jsonl; needs matplotlib."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shoestring import figures
from shoestring.errors import DataError
from shoestring.figures import BLUE, GREEN, INK, PURPLE, RED, SKY
from shoestring.train.report.metrics import read

if TYPE_CHECKING:
    from shoestring.figures import Axes, Figure

Point = tuple[int, float]
"""A step and a value."""
_MAX_POINTS = 4000  # more than the picture has pixels across


@dataclass(frozen=True, kw_only=True)
class _Panel:
    key: str
    title: str
    unit: str
    color: str
    is_noisy: bool = False
    """Drawn faint, under a running mean."""
    is_log: bool = False


_HERO = _Panel(key="bits_per_byte", title="Bits per byte", unit="bits per byte", color=BLUE, is_noisy=True)
_PANELS = (
    _Panel(key="loss", title="Training loss", unit="nats", color=BLUE, is_noisy=True),
    _Panel(
        key="rewards/accuracies", title="Pairs in the right order", unit="share", color=GREEN, is_noisy=True
    ),
    _Panel(
        key="rewards/margins", title="Margin of rewards", unit="chosen - rejected", color=SKY, is_noisy=True
    ),
    _Panel(key="lr", title="Learning rate", unit="per step", color=PURPLE),
    _Panel(key="batch", title="Batch", unit="sequences per step", color=PURPLE),
    _Panel(
        key="grad_norm", title="Gradient norm", unit="before clipping", color=RED, is_noisy=True, is_log=True
    ),
    _Panel(
        key="max_violation",
        title="Expert max violation",
        unit="busiest / mean - 1",
        color=GREEN,
        is_noisy=True,
    ),
    _Panel(key="tokens_per_s", title="Speed", unit="tokens per second", color=SKY, is_noisy=True),
)


def draw(metrics: Path, out: Path, *, title: str = "", baselines: Mapping[str, float] | None = None) -> None:
    """Draw the curves of `metrics` over tokens into `out` (.png or .svg).

    `baselines` are bits per byte of other ways to store the held-out text, such as {"xz -9": 2.31}: lines
    beside the held-out points. A series that was not logged has no panel. Raises DataError for a log
    without figures, ConfigError for another file type, MissingDependencyError without matplotlib.
    """
    figures.check_type(out)
    rows = read(metrics)
    panels = [panel for panel in _PANELS if _series(rows, panel.key)[1]]
    if not panels and not _series(rows, _HERO.key)[1]:
        raise DataError(f"{metrics} has no figures to draw yet; train for some steps first")
    figures.save(out, lambda: _figure(rows, panels, title, baselines or {}))


def draw_pairs(
    curves: Mapping[str, tuple[Sequence[Point], Sequence[Point]]], names: Sequence[str], out: Path
) -> None:
    """Draw the curves of two runs, a panel for each figure, into `out` (.png or .svg).

    Raises DataError without a common figure, ConfigError for another file type, MissingDependencyError.
    """
    figures.check_type(out)
    if not curves:
        raise DataError(f"{' and '.join(names)} have no figure in common; train both for some steps first")

    def build() -> "Figure":
        num_rows = -(-len(curves) // 2)
        figure = figures.new_figure(10, 1 + 2.2 * num_rows, " and ".join(names))
        for place, (key, pair) in enumerate(curves.items(), start=1):
            axes = figure.add_subplot(num_rows, 2, place)
            for name, points, color in zip(names, pair, (BLUE, RED), strict=True):
                steps, values = zip(*points, strict=True)
                axes.plot(steps, values, color=color, linewidth=1.2, label=name)
            axes.set_title(key)
            figures.with_amounts(axes)
            if place == 1:
                axes.legend()
        return figure

    figures.save(out, build)


def _figure(
    rows: list[dict[str, Any]], panels: Sequence[_Panel], title: str, baselines: Mapping[str, float]
) -> "Figure":
    num_rows = -(-len(panels) // 2)
    figure = figures.new_figure(10, 3.4 + 1.9 * num_rows, title)
    grid = figure.add_gridspec(1 + num_rows, 2, height_ratios=[1.7] + [1] * num_rows)
    hero = figure.add_subplot(grid[0, :])
    _draw_panel(hero, rows, _HERO)
    _draw_heldout(hero, rows, baselines)
    for index, panel in enumerate(panels):
        axes = figure.add_subplot(grid[1 + index // 2, index % 2], sharex=hero)
        _draw_panel(axes, rows, panel)
        is_lowest = index >= len(panels) - 2
        axes.tick_params(labelbottom=is_lowest)
        axes.set_xlabel(_x_label(rows) if is_lowest else "")
    if not panels:
        hero.set_xlabel(_x_label(rows))
    return figure


def _draw_panel(axes: "Axes", rows: list[dict[str, Any]], panel: _Panel) -> None:
    x, y = _series(rows, panel.key)
    stride = -(-len(x) // _MAX_POINTS) or 1
    if panel.is_noisy and len(x) > 20:
        axes.plot(x[::stride], y[::stride], color=panel.color, alpha=0.25, linewidth=0.7)
        axes.plot(x[::stride], _running_mean(y)[::stride], color=panel.color, linewidth=1.6, label="training")
    else:
        axes.plot(x[::stride], y[::stride], color=panel.color, linewidth=1.6, label="training")
    axes.set_title(panel.title)
    axes.set_ylabel(panel.unit)
    figures.with_amounts(axes)
    if panel.is_log and min(y, default=0) > 0:
        figures.logarithmic(axes)
    if panel.key in ("lr", "batch", "tokens_per_s", "max_violation"):
        axes.set_ylim(bottom=0)
    if panel.key == "tokens_per_s":
        _add_peak_scale(axes, rows)


def _add_peak_scale(axes: "Axes", rows: list[dict[str, Any]]) -> None:
    """A second scale: a token costs the same FLOPs all run long, so the share is the speed, scaled."""
    shares = [
        row["peak_share"] / row["tokens_per_s"]
        for row in rows
        if _is_number(row.get("peak_share"))
        and _is_number(row.get("tokens_per_s"))
        and row["tokens_per_s"] > 0
    ]
    if shares and shares[-1] > 0:
        factor = shares[-1]
        scale = axes.secondary_yaxis("right", functions=(lambda y: y * factor, lambda y: y / factor))
        scale.set_ylabel("of measured peak")
        scale.yaxis.set_major_formatter(lambda y, _: f"{y:.0%}")


def _draw_heldout(axes: "Axes", rows: list[dict[str, Any]], baselines: Mapping[str, float]) -> None:
    x, y = _series(rows, "heldout_bits_per_byte")
    if x:
        axes.plot(x, y, "o-", color=RED, markersize=4, linewidth=1, label=f"held out (last {y[-1]:.3f})")
    for (name, value), style in zip(baselines.items(), ("--", ":", "-.") * len(baselines), strict=False):
        axes.axhline(value, color=INK, linestyle=style, linewidth=1, label=f"{name} ({value:.3f})")
    if axes.get_legend_handles_labels()[0]:
        axes.legend(ncols=4, loc="upper right")


def _series(rows: list[dict[str, Any]], key: str) -> tuple[list[float], list[float]]:
    """Positions (tokens, or steps if tokens were not logged) and finite values of `key`."""
    unit = _x_key(rows)
    points = [(row[unit], row[key]) for row in rows if _is_number(row.get(key)) and _is_number(row.get(unit))]
    return [x for x, _ in points], [y for _, y in points]


def _x_key(rows: list[dict[str, Any]]) -> str:
    return "tokens" if any(_is_number(row.get("tokens")) for row in rows) else "step"


def _x_label(rows: list[dict[str, Any]]) -> str:
    return "tokens trained on" if _x_key(rows) == "tokens" else "steps"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _running_mean(values: Sequence[float]) -> list[float]:
    """Mean over about a fortieth of the run, centered, so that it does not lag; narrower at the start."""
    half = max(len(values) // 80, 2)
    sums = [0.0]
    for value in values:
        sums.append(sums[-1] + value)
    means = []
    for index in range(len(values)):
        first = max(index - half, 0)
        last = min(index + half, 2 * index, len(values) - 1)
        means.append((sums[last + 1] - sums[first]) / (last + 1 - first))
    return means
