"""Runs as the page shows them."""

from collections.abc import Sequence
from typing import Any

from shoestring.serve.dialects.schema import Schema
from shoestring.serve.training.folder import has_file
from shoestring.serve.training.overview import note_of, tags_of
from shoestring.serve.training.receipts import Receipt, receipts_of
from shoestring.serve.training.run import WatchedRun
from shoestring.serve.training.runs import Runs
from shoestring.serve.training.stages import Stage, State

MAX_LISTED = 100
"""Runs in the list, the last changed ones."""


class RunHead(Schema):
    """A run in the list."""

    name: str
    title: str
    state: State
    stage: str
    """The stage that goes on, or with which it would go on; empty without one."""
    num_finished: int
    num_stages: int
    tags: list[str]
    note: str


class RunList(Schema):
    """The runs, the last changed first."""

    runs: list[RunHead]
    yields: bool
    """Answers yield to a training that goes on."""


class StageView(Schema):
    """A stage. None is unknown."""

    name: str
    title: str
    kind: str
    state: State
    step: int | None
    steps: int | None
    share: float | None
    eta_s: float | None
    figures: dict[str, float]
    """Those of the last step."""
    scores: dict[str, float]
    """Those of its model on held-out problems."""


class RunView(RunHead):
    """A run with its stages and receipts."""

    failure: str
    """The reason why its training ended; empty when it is well."""
    stages: list[StageView]
    receipts: list[Receipt]


class Sample(Schema):
    """An answer that the model gave while it learned."""

    question: str
    text: str
    is_right: bool
    is_cut: bool


class StepSamples(Schema):
    """Answers of one step."""

    step: int
    samples: list[Sample]


class CurvesView(Schema):
    """The curves of a stage and samples of its answers."""

    curves: dict[str, list[tuple[int, float]]]
    """Points of step and value, by figure."""
    samples: list[StepSamples]


def run_list(runs: Runs) -> RunList:
    """The list of all runs."""
    all_runs = [(name, WatchedRun(runs.folder.root / name)) for name in runs.folder.names()[:MAX_LISTED]]
    heads = [RunHead(**_head(name, run, run.stages())) for name, run in all_runs]
    return RunList(runs=heads, yields=runs.control.yields)


def run_view(runs: Runs, name: str) -> RunView:
    """A run. Raises RequestError when there is none."""
    run = runs.watched(name)
    stages = run.stages()
    return RunView(
        **_head(name, run, stages),
        failure=runs.control.failure(run.folder),
        stages=[_stage(run, stage) for stage in stages],
        receipts=receipts_of(run.folder, stages),
    )


def curves_view(runs: Runs, name: str, stage_name: str) -> CurvesView:
    """The curves and samples of a stage, or of the last one that learns when none has this name.

    Raises RequestError without the run.
    """
    run = runs.watched(name)
    stages = run.stages()
    with_curves = [stage for stage in stages if has_file(run.folder, *stage.parts, "metrics.jsonl")]
    stage = next(
        (stage for stage in stages if stage.name == stage_name), with_curves[-1] if with_curves else None
    )
    if stage is None:
        return CurvesView(curves={}, samples=[])
    with run.lock:
        log = run.log(stage)
        steps = sorted(log.samples.by_step.items())
        samples = [
            StepSamples(step=step, samples=[Sample(**one) for one in of_step]) for step, of_step in steps
        ]
        return CurvesView(
            curves={figure: list(points) for figure, points in log.curves.points.items()}, samples=samples
        )


def _head(name: str, run: WatchedRun, stages: Sequence[Stage]) -> dict[str, Any]:
    present = next((stage for stage in stages if stage.state != "finished"), None)
    is_open = any(stage.state in ("running", "scoring") for stage in stages)
    return {
        "name": name,
        "title": run.title,
        "state": "running" if is_open else "stopped" if present else "finished",
        "stage": present.name if present else "",
        "num_finished": sum(stage.state == "finished" for stage in stages),
        "num_stages": len(stages),
        "tags": tags_of(run.config),
        "note": note_of(run.config),
    }


def _stage(run: WatchedRun, stage: Stage) -> StageView:
    with run.lock:
        progress = run.log(stage).progress(stage)
    return StageView(
        name=stage.name,
        title=stage.title,
        kind=stage.kind,
        state=stage.state,
        step=progress.step,
        steps=progress.steps,
        share=progress.share,
        eta_s=progress.eta_s if stage.state == "running" else None,
        figures=dict(progress.figures),
        scores=dict(stage.scores),
    )
