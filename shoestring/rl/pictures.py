"""Pictures of a recipe's run: curves of reinforcement, bars of the stages, and a web page with both."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shoestring import figures
from shoestring.errors import MissingDependencyError
from shoestring.figures import BLUE, FAINT, GREEN, PURPLE, RED, SKY
from shoestring.train.report.metrics import read
from shoestring.train.report.web_page import write_html

if TYPE_CHECKING:
    from shoestring.figures import Axes, Figure

log = logging.getLogger(__name__)

_PANELS = (
    ("accuracy", "Right answers", "share of samples", BLUE),
    ("answer_tokens", "Length of answers", "tokens", PURPLE),
    ("entropy", "Entropy", "nats a token", GREEN),
    ("truncated", "Cut at the limit", "share of samples", RED),
    ("kl", "KL to the reference", "nats a token", SKY),
    ("clip_share", "Clipped tokens", "share", SKY),
    ("gap", "Trainer - engine", "largest |log p| difference", FAINT),
    ("samples_per_s", "Speed", "answers per second", SKY),
)
_SHARES = (("pass_at_1", "pass@1", BLUE), ("greedy", "greedy", SKY), ("maj_at_8", "maj@8", GREEN))
_TABLE = (
    "name",
    "title",
    "parameters",
    "pass_at_1",
    "maj_at_8",
    "greedy",
    "greedy_capped_share",
    "format_share",
    "mean_thinking_tokens",
    "problems",
    "seconds",
    "train_flops",
)


def write_report(report: dict[str, Any], out: Path) -> None:
    """Write report.html in `out`, with a picture of the stages and one of each reinforcement stage."""
    pictures = []
    try:
        if any(row.get("pass_at_1") is not None for row in report["stages"]):
            draw_stages(report["stages"], out / "stages.png")
            pictures.append(out / "stages.png")
        for row in report["stages"]:
            if row["kind"] == "grpo":
                folder = out / row["name"]
                draw_curves(folder / "metrics.jsonl", folder / "curves.png", title=row["name"])
                pictures.append(folder / "curves.png")
    except MissingDependencyError as error:
        log.warning("the report has no pictures: %s", error)
    table = [{name: _with_interval(row, name) for name in _TABLE if name in row} for row in report["stages"]]
    page = {**report, "title": report.get("title") or "Reasoning", "stages": table}
    write_html(page, out / "report.html", pictures)


def draw_curves(metrics: Path, out: Path, *, title: str = "") -> None:
    """Draw the figures of a reinforcement stage over its steps; those that are always zero are left out."""
    rows = read(metrics)
    panels = [panel for panel in _PANELS if any(row.get(panel[0]) for row in rows)]

    def build() -> "Figure":
        height = -(-len(panels) // 2)
        figure = figures.new_figure(10, 0.6 + 1.9 * height, title)
        for place, (key, name, unit, color) in enumerate(panels):
            axes = figure.add_subplot(height, 2, place + 1)
            _draw_series(axes, rows, key, color)
            axes.set_title(name)
            axes.set_ylabel(unit)
            axes.set_ylim(bottom=0)
        return figure

    figures.save(out, build)


def draw_stages(rows: Sequence[dict[str, Any]], out: Path) -> None:
    """Draw pass@1, greedy and maj@8 of every stage's model with 95% intervals, and its tokens of thinking.

    A figure that no model has is left out, and so is thinking where there is none.
    """
    rows = [row for row in rows if row.get("pass_at_1") is not None]
    kinds = [kind for kind in _SHARES if any(row.get(kind[0]) is not None for row in rows)]
    thinks = any(row["mean_thinking_tokens"] for row in rows)

    def build() -> "Figure":
        figure = figures.new_figure(10, 4.6 if thinks else 3.4, "Held-out problems solved, stage by stage")
        above, *below = figure.subplots(
            1 + thinks, 1, height_ratios=[2, 1][: 1 + thinks], sharex=True, squeeze=False
        )[:, 0]
        for place, (key, name, color) in enumerate(kinds):
            offset = (place - (len(kinds) - 1) / 2) * 0.27
            x = [i + offset for i, row in enumerate(rows) if row.get(key) is not None]
            y = [row[key] for row in rows if row.get(key) is not None]
            ends = [_ends(row, key) for row in rows if row.get(key) is not None]
            above.bar(x, y, width=0.25, color=color, label=name)
            above.errorbar(x, y, yerr=list(zip(*ends, strict=True)), fmt="none", ecolor="#222222", capsize=2)
            for left, value, (_, up) in zip(x, y, ends, strict=True):
                above.text(left, value + up + 0.02, f"{value:.0%}", ha="center", fontsize=8)
        above.set_ylim(0, 1.15)
        above.set_xlim(-0.6, len(rows) - 0.4)
        above.set_ylabel("share right")
        above.legend(ncols=3, loc="upper left")
        for axes in below:
            axes.bar(range(len(rows)), [row["mean_thinking_tokens"] for row in rows], 0.5, color=PURPLE)
            axes.set_ylabel("tokens of thinking")
        figure.axes[-1].set_xticks(range(len(rows)), [row["name"] for row in rows])
        return figure

    figures.save(out, build)


def _draw_series(axes: "Axes", rows: Sequence[dict[str, Any]], key: str, color: str) -> None:
    points = [(row["step"], row[key]) for row in rows if isinstance(row.get(key), int | float)]
    x, y = [p[0] for p in points], [p[1] for p in points]
    half = max(len(y) // 40, 1)
    smooth = [
        sum(y[max(i - half, 0) : i + half + 1]) / len(y[max(i - half, 0) : i + half + 1])
        for i in range(len(y))
    ]
    axes.plot(x, y, color=color, alpha=0.3, linewidth=0.8)
    axes.plot(x, smooth, color=color, linewidth=1.8)
    held_out = [(row["step"], row["eval_accuracy"]) for row in rows if row.get("eval_accuracy") is not None]
    if key == "accuracy" and held_out:
        axes.plot(*zip(*held_out, strict=True), "o", color=RED, markersize=4, label="held out")
        axes.legend()


def _ends(row: dict[str, Any], key: str) -> tuple[float, float]:
    """Distances of a value from the lower and the upper end of its interval."""
    low, high = row.get("intervals", {}).get(key, (row[key], row[key]))
    return max(row[key] - low, 0.0), max(high - row[key], 0.0)


def _with_interval(row: dict[str, Any], name: str) -> Any:
    interval = row.get("intervals", {}).get(name)
    if interval is None or row[name] is None:
        return row[name]
    digits = ".0f" if name.endswith("tokens") else ".1%"
    return f"{row[name]:{digits}} ({interval[0]:{digits}} to {interval[1]:{digits}})"
