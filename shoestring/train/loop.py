"""The loop of every kind of training: steps, their log, evaluations, checkpoints, a stop on Ctrl-C."""

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from shoestring import config as configs
from shoestring.errors import ShoestringError, Stopped
from shoestring.threads import Threads
from shoestring.train.parallel import Ranks
from shoestring.train.report.energy import EnergyMeter
from shoestring.train.report.metrics import MetricsLog
from shoestring.train.report.receipt import Segment, utc_now
from shoestring.train.report.trackers import Trackers
from shoestring.train.runs.crash import crash_kept
from shoestring.train.runs.recipe import RunConfig
from shoestring.train.stop import StopRequest

STOPPING = "stopping: the run is saved first; Ctrl-C again ends it at once, from the last checkpoint on"


class Run(Protocol):
    """A run in its folder, as far as the loop knows it."""

    out: Path
    step: int
    """Steps so far."""
    segments: list[Segment]
    """Uninterrupted parts of the run so far, for the receipt."""

    @property
    def config(self) -> RunConfig: ...
    @property
    def is_finished(self) -> bool: ...


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """Figures of a step, and the reason to end the run after it, if there is one."""

    row: dict[str, Any]
    """Its line in metrics.jsonl."""
    display: Mapping[str, Any] = field(default_factory=dict)
    """Further figures that only the display shows."""
    failure: ShoestringError | None = None
    """Reason to end the run here; it is saved first. The same on every rank."""


class Abandoned(Stopped):
    """A step that was left before its end: the run is as it was before it."""


class Pulse:
    """The way in which a long step shows how far it is, and learns that it should end."""

    def __init__(self, show: Callable[[Mapping[str, Any]], None]) -> None:
        self._show = show
        self.stop = StopRequest()
        """The request to stop that the loop listens to."""

    def say(self, text: str) -> None:
        """Show what the step does now."""
        self._show({"phase": text})

    def check(self) -> None:
        """Raise Abandoned when the run was asked to stop."""
        if self.stop.is_requested:
            raise Abandoned


class Trainer(Protocol):
    """A kind of training: its step, evaluation and checkpoint."""

    @property
    def run(self) -> Run: ...

    def take_step(self) -> StepResult:
        """Take one step, which adds one to `run.step`; raises Abandoned when it was left before its end."""

    def evaluate(self) -> Mapping[str, Any]:
        """Figures of the model as it now is, for the row of the step; only the first rank evaluates."""

    def save(self) -> None:
        """Save a checkpoint; every rank takes part."""


def train(
    trainer: Trainer,
    ranks: Ranks,
    *,
    resume: bool,
    save_every: int,
    eval_every: int,
    show: Callable[[Mapping[str, Any]], None],
    watts: float | None = None,
    pulse: Pulse | None = None,
) -> None:
    """Take steps until the run is finished, then save it.

    The first rank logs, evaluates and shows each step's figures (`show`). Raises Stopped when any rank was
    asked to stop, and a step's own failure; both after a checkpoint. `resume` continues metrics.jsonl. A
    `pulse` is what the trainer's long steps look at: they end at once.
    """
    run = trainer.run
    with ExitStack() as stack:
        path, last_step = run.out / "metrics.jsonl", run.step if resume else None
        metrics = stack.enter_context(MetricsLog(path, last_step)) if ranks.is_first else None
        stop = stack.enter_context(StopRequest(STOPPING if ranks.is_first else ""))
        if pulse is not None:
            pulse.stop = stop
        clock = Clock(run, stack.enter_context(EnergyMeter(watts=watts, gpus=ranks.gpus, is_estimated=True)))
        threads = stack.enter_context(Threads())
        names = run.config.report_to if ranks.is_first else ()
        trackers = stack.enter_context(Trackers(names, run.out, configs.table(run.config), run.step))
        if ranks.is_first and not run.is_finished:
            (run.out / "report.json").unlink(missing_ok=True)  # of a run that was to be shorter
        while not run.is_finished:
            try:
                with crash_kept(run):
                    result = trainer.take_step()
            except Stopped as reason:  # inside a step: the run is as it was before it
                _save(trainer, metrics, clock)
                raise _stopped(run, str(reason)) from None
            shared = threads.figures()  # of the step
            threads.follow()
            if metrics is not None:
                is_due = run.is_finished or run.step % eval_every == 0
                row = result.row | shared.row | dict(trainer.evaluate() if is_due else {})
                metrics.log(run.step, row)
                trackers.log(run.step, row)
                show({"step": run.step, **row, **result.display, **shared.display})
            is_stopped = ranks.any(stop.is_requested)
            if is_stopped or result.failure or run.step % save_every == 0:
                _save(trainer, metrics, clock)
            if result.failure:
                raise result.failure
            if is_stopped and not run.is_finished:
                raise _stopped(run)
        _save(trainer, metrics, clock)
    run.segments = clock.segments()  # with the time of the last checkpoint


def _stopped(run: Run, reason: str = "") -> Stopped:
    why = f"{reason}; " if reason else ""
    return Stopped(f"{why}stopped at step {run.step:,} and saved; --resume --out {run.out} goes on")


def _save(trainer: Trainer, metrics: MetricsLog | None, clock: "Clock") -> None:
    if metrics is not None:
        metrics.sync()
    trainer.run.segments = clock.segments()
    trainer.save()


class Clock:
    """Time and energy of a run: its earlier segments and the one now running."""

    def __init__(self, run: Run, meter: EnergyMeter) -> None:
        self._run, self._earlier, self._meter = run, list(run.segments), meter
        self._start, self._start_s = utc_now(), time.monotonic()

    def segments(self) -> list[Segment]:
        """All segments, the current one up to now."""
        current = Segment(
            start=self._start,
            end=utc_now(),
            seconds=time.monotonic() - self._start_s,
            energy=self._meter.read(),
            step=self._run.step,
            recipe=configs.table(self._run.config),
        )
        return [*self._earlier, current]
