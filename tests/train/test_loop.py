"""The loop alone, on a trainer that only counts: what it logs, when it evaluates, saves, stops and fails."""

import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from shoestring.errors import CrashError, DataError, Stopped
from shoestring.train import loop
from shoestring.train.loop import StepResult, train
from shoestring.train.parallel import Ranks
from shoestring.train.report import trackers
from shoestring.train.report.receipt import Segment
from shoestring.train.runs.recipe import RunConfig


class CountingRun:
    def __init__(self, out: Path, total: int, step: int = 0, segments: tuple[Segment, ...] = ()) -> None:
        self.out, self.total, self.step, self.segments = out, total, step, list(segments)
        self.config = RunConfig(seed=3)

    @property
    def is_finished(self) -> bool:
        return self.step >= self.total


class CountingTrainer:
    def __init__(self, run: CountingRun) -> None:
        self.run, self.calls = run, []
        self.failure, self.interrupt_at = {}, None

    def take_step(self) -> StepResult:
        self.run.step += 1
        self.calls.append(f"step {self.run.step}")
        if self.run.step == self.interrupt_at:
            os.kill(os.getpid(), signal.SIGINT)
        step = self.run.step
        return StepResult(row={"x": step}, display={"bars": [step]}, failure=self.failure.get(step))

    def evaluate(self):
        self.calls.append("evaluate")
        return {"score": 10 * self.run.step}

    def save(self) -> None:
        self.calls.append(f"save {self.run.step}")


@pytest.fixture
def go(runtime, tmp_path, monkeypatch):
    """Runs a counting trainer: `go(trainer, **changes)` returns what was shown."""
    sync = loop.MetricsLog.sync

    def make(trainer, *, rank=0, **changes):
        def note(log):
            trainer.calls.append("sync")
            sync(log)

        shown = []
        monkeypatch.setattr(loop.MetricsLog, "sync", note)
        settings = {"resume": False, "save_every": 3, "eval_every": 2, "show": shown.append} | changes
        train(trainer, Ranks(replace(runtime, rank=rank)), **settings)
        return shown

    return make


def rows(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def test_steps_evaluations_and_checkpoints_come_in_order(go, tmp_path):
    trainer = CountingTrainer(CountingRun(tmp_path, 5))
    shown = go(trainer)
    assert trainer.calls == [
        "step 1",
        *("step 2", "evaluate"),
        *("step 3", "sync", "save 3"),
        *("step 4", "evaluate"),
        *("step 5", "evaluate"),  # the last step is always evaluated
        *("sync", "save 5"),
    ]
    assert [row.get("score") for row in rows(tmp_path)] == [None, 20, None, 40, 50]
    assert rows(tmp_path)[1] == {"step": 2, "x": 2, "score": 20}
    assert shown[1] == {"step": 2, "x": 2, "score": 20, "bars": [2]}


def test_a_finished_run_takes_no_step_and_is_saved(go, tmp_path):
    trainer = CountingTrainer(CountingRun(tmp_path, 5, step=5))
    assert go(trainer, resume=True) == []
    assert trainer.calls == ["sync", "save 5"]


def test_a_new_run_replaces_the_log_and_a_resumed_one_continues_it(go, tmp_path):
    go(CountingTrainer(CountingRun(tmp_path, 5)))
    go(CountingTrainer(CountingRun(tmp_path, 7, step=4)), resume=True)
    assert [row["step"] for row in rows(tmp_path)] == [1, 2, 3, 4, 5, 6, 7]
    go(CountingTrainer(CountingRun(tmp_path, 2)))
    assert [row["step"] for row in rows(tmp_path)] == [1, 2]


@pytest.mark.parametrize("step", [1, 4])
def test_ctrl_c_ends_the_run_after_its_step_and_a_checkpoint(go, tmp_path, step):
    trainer = CountingTrainer(CountingRun(tmp_path, 5))
    trainer.interrupt_at = step
    with pytest.raises(Stopped, match=f"stopped at step {step} and saved; --resume --out {tmp_path} goes on"):
        go(trainer)
    assert trainer.calls[-1] == f"save {step}"
    assert rows(tmp_path)[-1]["step"] == step


def test_ctrl_c_in_the_last_step_is_the_end_of_the_run(go, tmp_path):
    trainer = CountingTrainer(CountingRun(tmp_path, 2))
    trainer.interrupt_at = 2
    assert len(go(trainer)) == 2


def test_a_failure_is_raised_after_its_row_and_a_checkpoint(go, tmp_path):
    trainer = CountingTrainer(CountingRun(tmp_path, 5))
    trainer.failure = {2: DataError("no more")}
    with pytest.raises(DataError, match="no more"):
        go(trainer)
    assert trainer.calls == ["step 1", "step 2", "evaluate", "sync", "save 2"]
    assert len(rows(tmp_path)) == 2


def test_only_the_first_rank_logs_evaluates_and_shows(go, tmp_path):
    trainer = CountingTrainer(CountingRun(tmp_path, 4))
    assert go(trainer, rank=1) == []
    assert trainer.calls == ["step 1", "step 2", "step 3", "save 3", "step 4", "save 4"]
    assert not (tmp_path / "metrics.jsonl").exists()


def test_segments_add_up_over_resumes(go, tmp_path):
    first = CountingRun(tmp_path, 2)
    go(CountingTrainer(first), watts=40.0)
    second = CountingRun(tmp_path, 4, step=2, segments=tuple(first.segments))
    go(CountingTrainer(second), resume=True, watts=40.0)
    assert len(first.segments) == 1
    assert second.segments[0] == first.segments[0]
    assert len(second.segments) == 2
    assert second.segments[1].seconds > 0
    assert second.segments[1].energy.joules > 0


def test_a_step_that_crashes_leaves_its_traceback_and_ends_the_run(go, tmp_path):
    trainer = CountingTrainer(CountingRun(tmp_path, 4))
    trainer.failure = None  # so that looking it up fails
    with pytest.raises(CrashError, match="AttributeError"):
        go(trainer)
    assert "AttributeError" in (tmp_path / "crash" / "traceback.txt").read_text()
    assert "save 1" not in trainer.calls


def test_trackers_get_each_row_and_go_on_after_a_resume(go, tmp_path, monkeypatch):
    calls = []

    class Noting:
        def __init__(self, *_): ...

        def start(self, config, step):
            calls.append(("start", config["seed"], step))

        def log(self, step, figures):
            calls.append((step, figures))

        def finish(self):
            calls.append("finish")

    monkeypatch.setitem(trackers.KINDS, "tensorboard", Noting)
    monkeypatch.setattr("importlib.util.find_spec", lambda _: True)
    for total, step in ((2, 0), (3, 2)):
        run = CountingRun(tmp_path, total, step=step)
        run.config = RunConfig(seed=3, report_to=("tensorboard",))
        go(CountingTrainer(run), resume=step > 0, eval_every=2)
    assert calls == [
        *(("start", 3, 0), (1, {"x": 1.0}), (2, {"x": 2.0, "score": 20.0}), "finish"),
        *(("start", 3, 2), (3, {"x": 3.0, "score": 30.0}), "finish"),
    ]


def test_the_report_of_a_shorter_run_goes_when_more_steps_are_taken(go, tmp_path):
    report = tmp_path / "report.json"
    report.write_text("{}")
    go(CountingTrainer(CountingRun(tmp_path, 2, step=2)), resume=True)
    assert report.exists()
    go(CountingTrainer(CountingRun(tmp_path, 3, step=2)), resume=True)
    assert not report.exists()
