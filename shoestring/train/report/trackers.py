"""Trackers: TensorBoard, trackio and Weights & Biases get each step's figures, beside metrics.jsonl.

Each tracker has three calls: it starts, logs a step's figures, and finishes. All write to this machine, and
nothing is sent unless a tracker's own environment variables ask for it (WANDB_MODE=online, TRACKIO_SPACE_ID).
"""

import contextlib
import importlib.util
import json
import logging
import math
import os
import sys
import uuid
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol, Self

from shoestring.durable import write_atomic
from shoestring.errors import ConfigError, MissingDependencyError

log = logging.getLogger(__name__)

PROJECT = "shoestring"
"""The project of all runs in trackio and Weights & Biases."""
FILE = "trackers.json"
"""The id by which a resumed run goes on in its trackers."""


class Tracker(Protocol):
    """A tracker of one run."""

    def start(self, config: Mapping[str, Any], step: int) -> None:
        """Begin with the run's settings, or go on after `step`."""

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """Take the figures of a step."""

    def finish(self) -> None:
        """Write what is left."""


class TensorBoard:
    """Event files in `out/tensorboard`, for `tensorboard --logdir runs`."""

    def __init__(self, out: Path, _: str) -> None:
        self._folder = out / "tensorboard"

    def start(self, config: Mapping[str, Any], step: int) -> None:
        """See Tracker; what a killed run had logged after `step` is hidden."""
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(self._folder), purge_step=step + 1 if step else None)
        text = json.dumps(config, indent=2)
        self._writer.add_text("settings", "\n".join(f"    {line}" for line in text.splitlines()), step)

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """See Tracker."""
        for name, value in figures.items():
            self._writer.add_scalar(name, value, step)

    def finish(self) -> None:
        """See Tracker."""
        self._writer.close()


class Trackio:
    """A run in trackio's database on this machine, for `trackio show`."""

    def __init__(self, out: Path, run_id: str) -> None:
        self._name = f"{out.resolve().name}-{run_id}"

    def start(self, config: Mapping[str, Any], step: int) -> None:
        """See Tracker."""
        import trackio

        self._run = trackio.init(
            project=PROJECT,
            name=self._name,
            config=dict(config),
            resume="allow",
            embed=False,
            auto_log_cpu=False,
            auto_log_gpu=False,
        )

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """See Tracker."""
        self._run.log(dict(figures), step=step)

    def finish(self) -> None:
        """See Tracker."""
        self._run.finish()


class WeightsAndBiases:
    """A run of Weights & Biases in `out/wandb`, for `wandb sync`."""

    def __init__(self, out: Path, run_id: str) -> None:
        self._out, self._id = out, run_id

    def start(self, config: Mapping[str, Any], step: int) -> None:
        """See Tracker."""
        import wandb

        os.environ.setdefault("WANDB_MODE", "offline")
        self._run = wandb.init(
            project=PROJECT,
            name=self._out.resolve().name,
            id=self._id,
            dir=str(self._out),
            config=dict(config),
            resume="allow",
        )

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """See Tracker."""
        self._run.log(dict(figures), step=step)

    def finish(self) -> None:
        """See Tracker."""
        self._run.finish()


KINDS: Mapping[str, Callable[[Path, str], Tracker]] = {
    "tensorboard": TensorBoard,
    "trackio": Trackio,
    "wandb": WeightsAndBiases,
}


def check_names(names: Iterable[str]) -> None:
    """Raise ConfigError for a tracker that there is not."""
    for name in names:
        if name not in KINDS:
            raise ConfigError(f"report_to has {name!r}; it takes {', '.join(KINDS)}")


class Trackers:
    """The trackers of a run as one. One that fails ends with a warning, and the run goes on."""

    def __init__(self, names: Iterable[str], out: Path, config: Mapping[str, Any], step: int) -> None:
        """Start them, or let them go on after `step`. Raises MissingDependencyError without a library."""
        self._trackers: dict[str, Tracker] = {}
        names = list(names)
        for name in names:
            if importlib.util.find_spec(name) is None:
                raise MissingDependencyError(
                    f"report_to = {name!r} needs its library: pip install 'shoestring-llm[{name}]'"
                )
        run_id = _run_id(out, is_new=not step) if names else ""
        for name in names:
            self._trackers[name] = KINDS[name](out, run_id)
            self._call(name, lambda tracker: tracker.start(config, step))

    def log(self, step: int, row: Mapping[str, Any]) -> None:
        """Give each tracker the numbers of a row of metrics.jsonl."""
        figures = {name: float(value) for name, value in row.items() if name != "step" and _is_number(value)}
        for name in list(self._trackers):
            self._call(name, lambda tracker: tracker.log(step, figures))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for name in list(self._trackers):
            self._call(name, lambda tracker: tracker.finish())

    def _call(self, name: str, call: Callable[[Tracker], None]) -> None:
        try:
            with contextlib.redirect_stdout(sys.stderr):  # --json promises one document
                call(self._trackers[name])
        except Exception as error:
            del self._trackers[name]
            log.warning("%s gets no more figures of this run: %s: %s", name, type(error).__name__, error)


def _run_id(out: Path, *, is_new: bool) -> str:
    """The run's id in its trackers: a new one, or that which its folder has."""
    try:
        own_id = json.loads((out / FILE).read_text(encoding="utf-8"))["id"]
        if not is_new and isinstance(own_id, str) and own_id.isalnum():
            return own_id
    except (OSError, ValueError, KeyError, TypeError):
        pass
    fresh = uuid.uuid4().hex[:8]
    write_atomic(out / FILE, json.dumps({"id": fresh}) + "\n")
    return fresh


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
