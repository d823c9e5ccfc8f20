"""`shoestring runs`: the runs in a folder, two of them side by side, and notes on them."""

import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shoestring.cli.options import Json
from shoestring.cli.output import amount, print_json, print_table
from shoestring.cli.terminal import printable

if TYPE_CHECKING:
    from shoestring.serve.training.curves import Point
    from shoestring.serve.training.overview import Overview

Folder = Annotated[Path, typer.Option("--folder", help="The folder that holds the runs' folders.")]
Run = Annotated[str, typer.Argument(help="A run's folder, or its name in --folder.")]

BARS, ASCII_BARS = "▁▂▃▄▅▆▇█", "_.-=+*%#"
WIDTH = 48

app = typer.Typer(help="List runs, compare two, and write notes on them.", invoke_without_command=True)


@app.callback()
def runs(context: typer.Context, folder: Folder = Path("runs"), as_json: Json = False) -> None:
    """List the runs of a folder, the last changed first: state, place, main figure, age, size and tags."""
    if context.invoked_subcommand:
        return
    from shoestring.serve.training.overview import overviews

    rows = overviews(folder)
    if as_json:
        print_json([asdict(run) for run in rows])
        return
    if not rows:
        print(f"no runs in {folder}; name another folder with --folder")
        return
    titles = ("run", "kind", "model", "state", "step", "done", "figure", "age", "size", "tags")
    print_table(titles, [[printable(cell) for cell in _cells(run)] for run in rows])
    for run in rows:
        if run.note:
            print(f"{printable(run.name)}: {printable(run.note)}")


@app.command("compare")
def compare(
    one: Run,
    other: Run,
    *,
    picture: Annotated[Path | None, typer.Option(help="Draw the curves into this file (.png, .svg).")] = None,
    folder: Folder = Path("runs"),
    as_json: Json = False,
) -> None:
    """Compare two runs: settings that differ, final figures side by side, curves of common figures."""
    from shoestring.serve.training import overview

    folders = [overview.find(folder, name) for name in (one, other)]
    comparison = overview.compare(*folders)
    names = [path.resolve().name for path in folders]
    if picture is not None:
        from shoestring.train.report.curves import draw_pairs

        draw_pairs(comparison.curves, names, picture)
    if as_json:
        print_json({"runs": names, **asdict(comparison)})
        return
    for title, rows in (("setting", comparison.settings), ("figure", comparison.figures)):
        if rows:
            cells = [[name, *map(_value, pair)] for name, pair in rows.items()]
            print_table((title, *names), [[printable(cell) for cell in row] for row in cells])
            print()
    for name, pair in comparison.curves.items():
        _print_curves(name, names, pair)


@app.command("note")
def note(
    run: Run,
    text: Annotated[str | None, typer.Argument(help="The note, in place of the present one.")] = None,
    *,
    tag: Annotated[list[str], typer.Option(help="A tag, in place of the present ones; repeatable.")] = [],  # noqa: B006
    folder: Folder = Path("runs"),
) -> None:
    """Write a note on a run, or tags. A recipe may have them from the start: note = "...", tags = ["..."]."""
    from shoestring.serve.training.overview import find
    from shoestring.train.runs.notes import write_note

    write_note(find(folder, run), text, tag)


def _cells(run: "Overview") -> list[str]:
    """A row of the list."""
    state = f"running (process {run.pid})" if run.pid is not None else run.state
    state += f", stage {run.stage}" if run.stage else ""
    figure = run.main_figure
    return [
        *(run.name, run.verb or "-", run.model or "-", state),
        "-" if run.step is None else f"{run.step:,}",
        "-" if run.share is None else f"{run.share:.0%}",
        "-" if figure is None else f"{figure[0]} {figure[1]:.4g}",
        _age(max(time.time() - run.time_s, 0.0)),
        f"{amount(run.bytes, 'G')}B",
        " ".join(run.tags) or "-",
    ]


def _age(seconds: float) -> str:
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def _value(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)[:60]


def _print_curves(name: str, names: Sequence[str], pair: "tuple[Sequence[Point], Sequence[Point]]") -> None:
    """A figure of both runs as two lines of bars on one scale of steps and values."""
    values = [value for points in pair for _, value in points]
    low, high, last = min(values), max(values), max(step for points in pair for step, _ in points)
    print(f"{printable(name)}, {low:.4g} to {high:.4g} in {last:,} steps")
    width = max(map(len, names))
    for run, points in zip(names, pair, strict=True):
        print(f"  {printable(run):<{width}}  {_bars(points, low, high, last)}  {points[-1][1]:.4g}")


def _bars(points: "Sequence[Point]", low: float, high: float, last: int) -> str:
    """A bar for each part of the steps up to the last one: its mean, between the lowest and highest value."""
    bars = BARS if "utf" in (sys.stdout.encoding or "").lower() else ASCII_BARS
    cells: list[list[float]] = [[] for _ in range(WIDTH)]
    for step, value in points:
        cells[min(max(step - 1, 0) * WIDTH // max(last, 1), WIDTH - 1)].append(value)
    heights = [(sum(cell) / len(cell) - low) / (high - low or 1.0) if cell else None for cell in cells]
    return "".join(" " if height is None else bars[min(int(height * len(bars)), 7)] for height in heights)
