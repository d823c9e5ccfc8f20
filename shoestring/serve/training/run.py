"""A run while it is watched: its stages, curves and samples, each file read once and then only its end."""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shoestring.serve.training.curves import FIGURES, Curves
from shoestring.serve.training.folder import number, read_toml
from shoestring.serve.training.rows import Rows
from shoestring.serve.training.samples import Samples
from shoestring.serve.training.stages import Stage, stages_of

NUM_RECENT = 5
"""Rows whose speed predicts the rest."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """The place of a stage's training. None is unknown."""

    step: int | None = None
    steps: int | None = None
    share: float | None = None
    eta_s: float | None = None
    figures: Mapping[str, float] = field(default_factory=dict)
    """The figures of the last step."""


class StageLog:
    """The metrics and samples of one stage."""

    def __init__(self, folder: Path, stage: Stage, figures: Sequence[str] = FIGURES) -> None:
        self._figures = figures
        self.curves, self.samples = Curves(figures), Samples()
        self._metrics = Rows(folder, *stage.parts, "metrics.jsonl")
        self._texts = Rows(folder, *stage.parts, "samples.jsonl")
        self._recent: list[dict[str, Any]] = []

    def read(self) -> None:
        """Read what is new."""
        rows, is_new = self._metrics.read()
        if is_new:
            self.curves, self._recent = Curves(self._figures), []
        self.curves.add(rows)
        self._recent = [*self._recent, *rows][-NUM_RECENT:]
        texts, is_new = self._texts.read()
        if is_new:
            self.samples = Samples()
        self.samples.add(texts)

    def progress(self, stage: Stage) -> Progress:
        """The place of the training, and the seconds that it still takes at its present speed."""
        if not self._recent:
            return Progress(share=1.0 if stage.state == "finished" else None)
        row = self._recent[-1]
        step, tokens, total = row["step"], _number(row.get("tokens")), stage.total
        figures = {name: points[-1][1] for name, points in self.curves.points.items()}
        if stage.kind == "grpo":
            share = step / total if total else None
            seconds = [_number(r.get("sample_s")) + _number(r.get("update_s")) for r in self._recent]
            eta_s = (total - step) * sum(seconds) / len(seconds) if total else None
            return Progress(
                step=step, steps=int(total or 0) or None, share=share, eta_s=eta_s, figures=figures
            )
        share = _number(row.get("progress")) or (tokens / total if total else None)
        speed = _number(row.get("tokens_per_s"))
        rest = tokens * (1 - share) / share if share else None
        eta_s = rest / speed if rest is not None and speed else None
        return Progress(step=step, share=share, eta_s=eta_s, figures=figures)


class WatchedRun:
    """A run whose folder is read again and again."""

    def __init__(self, folder: Path, figures: Sequence[str] = FIGURES) -> None:
        """`figures` are the names of those that have curves."""
        self.folder, self._figures = folder, figures
        self.lock = threading.Lock()
        """Hold it while a log is read: several tabs may watch a run."""
        self._logs: dict[str, StageLog] = {}
        title = self.config.get("title")
        self.title = title[:200] if isinstance(title, str) else ""

    @property
    def config(self) -> Mapping[str, Any]:
        """The recipe as it is now; empty without one."""
        return read_toml(self.folder, "config.toml")

    def stages(self) -> list[Stage]:
        """The stages as they are now."""
        return stages_of(self.folder)

    def log(self, stage: Stage) -> StageLog:
        """The metrics and samples of a stage, up to now."""
        if stage.name not in self._logs:
            self._logs[stage.name] = StageLog(self.folder, stage, self._figures)
        self._logs[stage.name].read()
        return self._logs[stage.name]


def _number(value: Any) -> float:
    """A figure that a row should have; 0 for anything else."""
    return number(value) or 0.0
