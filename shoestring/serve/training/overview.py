"""Runs at a glance, and two of them side by side, as their folders show them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, Literal

from shoestring.config import changes
from shoestring.durable import bytes_in
from shoestring.errors import ConfigError
from shoestring.serve.training.curves import ALL_FIGURES, Point
from shoestring.serve.training.folder import RunsFolder, last_change_ns, number, read_json, read_toml
from shoestring.serve.training.run import Progress, WatchedRun
from shoestring.serve.training.stages import Stage, verb_of
from shoestring.train.runs.lock import holder
from shoestring.train.runs.recipe import CRASH_FOLDER

MAIN_FIGURES = (
    *("eval_accuracy", "accuracy", "heldout_rewards/accuracies", "rewards/accuracies"),
    *("heldout_bits_per_byte", "loss", "kl"),
)
"""The figure of a run that the list shows: the first of these that it has."""
MAX_TEXT = 2000


@dataclass(frozen=True, kw_only=True)
class Overview:
    """A run in a list. None is unknown."""

    name: str
    verb: str
    model: str
    """The model that it starts from, or the title of a recipe of stages."""
    state: Literal["running", "failed", "stopped", "finished"]
    pid: int | None
    """The process that trains."""
    stage: str
    """The stage that goes on or would go on, where there are several."""
    step: int | None
    share: float | None
    """Of the whole run."""
    figures: dict[str, float]
    """Those of the last step, and of the last evaluation."""
    bytes: int
    """On the disk."""
    time_s: float
    """Time of the last change, in seconds since 1970."""
    note: str
    tags: list[str]

    @property
    def main_figure(self) -> tuple[str, float] | None:
        """The figure that says most."""
        return next(((name, self.figures[name]) for name in MAIN_FIGURES if name in self.figures), None)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two runs side by side."""

    settings: dict[str, tuple[Any, Any]]
    """Those that differ."""
    figures: dict[str, tuple[float | None, float | None]]
    """Final ones: of the reports, or of the last steps."""
    curves: dict[str, tuple[Sequence[Point], Sequence[Point]]]
    """Points of step and value, of the figures that both have."""


def overviews(root: Path) -> list[Overview]:
    """The runs in a folder, the last changed first."""
    return [overview(root / name) for name in RunsFolder(root).names()]


def overview(folder: Path) -> Overview:
    """A run."""
    config, pid = read_toml(folder, "config.toml"), holder(folder)
    run = WatchedRun(folder, ALL_FIGURES)
    stages = run.stages()
    stage, progress = _present(run, stages)
    num_done = sum(stage.state == "finished" for stage in stages)
    is_whole = bool(stages) and num_done == len(stages)
    share = 0.0 if progress.share is None else min(progress.share, 1.0)
    return Overview(
        name=folder.resolve().name,
        verb=verb_of(config) or "",
        model=_model(config),
        state=_state(folder, pid, is_whole=is_whole, stage=stage, step=progress.step),
        pid=pid,
        stage="" if stage is None or is_whole else stage.name,
        step=progress.step,
        share=1.0 if is_whole else (num_done + share) / len(stages) if stages else None,
        figures=dict(progress.figures),
        bytes=bytes_in(folder),
        time_s=last_change_ns(folder) / 1e9,
        note=note_of(config),
        tags=tags_of(config),
    )


def note_of(config: Mapping[str, Any]) -> str:
    """The note in a recipe."""
    return _text(config.get("note"))


def tags_of(config: Mapping[str, Any]) -> list[str]:
    """The tags in a recipe."""
    tags = config.get("tags")
    return [_text(tag) for tag in tags if isinstance(tag, str)] if isinstance(tags, list) else []


def compare(one: Path, other: Path) -> Comparison:
    """Two runs: the settings that differ, the final figures, and the curves that both have."""
    configs = [read_toml(folder, "config.toml") for folder in (one, other)]
    curves, figures = [], []
    for folder in (one, other):
        run = WatchedRun(folder, ALL_FIGURES)
        stage, progress = _present(run, run.stages())
        curves.append({} if stage is None else run.log(stage).curves.points)
        figures.append(_numbers(read_json(folder, "report.json")) or dict(progress.figures))
    names = dict.fromkeys((*figures[0], *figures[1]))
    return Comparison(
        settings=changes(*configs),
        figures={name: (figures[0].get(name), figures[1].get(name)) for name in names},
        curves={name: (curves[0][name], curves[1][name]) for name in curves[0] if name in curves[1]},
    )


def find(root: Path, name: str) -> Path:
    """The folder of a run: a path, or a name in the folder of runs. Raises ConfigError without one."""
    for folder in (Path(name).expanduser(), root / name):
        if last_change_ns(folder):
            return folder
    names = ", ".join(RunsFolder(root).names()[:20]) or "none"
    raise ConfigError(f"{name} is no run's folder, nor a run in {root} (which has: {names})")


def _present(run: WatchedRun, stages: Sequence[Stage]) -> tuple[Stage | None, Progress]:
    """The stage that goes on or would go on, else the last one, and its place."""
    open_stages = [stage for stage in stages if stage.state not in ("finished", "waiting")]
    stage = next(iter((*open_stages, *reversed(stages))), None)
    return (None, Progress()) if stage is None else (stage, run.log(stage).progress(stage))


def _state(
    folder: Path, pid: int | None, *, is_whole: bool, stage: Stage | None, step: int | None
) -> Literal["running", "failed", "stopped", "finished"]:
    """The state of a run; it failed if the step that crashed last was not taken since."""
    if pid is not None:
        return "running"
    if is_whole:
        return "finished"
    parts = () if stage is None else stage.parts
    crash = read_json(folder, *parts, CRASH_FOLDER, "batch.json").get("step")
    return "failed" if type(crash) is int and (step or 0) < crash else "stopped"


def _model(config: Mapping[str, Any]) -> str:
    names = (config.get(key) for key in ("model", "student", "title"))
    name = next((name for name in names if isinstance(name, str)), "")
    return _text(PurePath(name).name if name.startswith(("/", ".", "~")) else name)


def _numbers(report: Mapping[str, Any]) -> dict[str, float]:
    """The figures of a report: its own, or those of its last stage."""
    rows = report.get("stages")
    if isinstance(rows, list) and rows and isinstance(rows[-1], dict):
        report = rows[-1]
    values = {name: number(value) for name, value in report.items()}
    return {name: value for name, value in values.items() if value is not None}


def _text(value: Any) -> str:
    return value[:MAX_TEXT] if isinstance(value, str) else ""
