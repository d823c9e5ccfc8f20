"""Trainings that the service starts, stops and resumes."""

import asyncio
import os
import sys

import pytest

from shoestring.serve.backends.errors import RequestError
from shoestring.serve.backends.lazy import ModelMemory
from shoestring.serve.training import control as module
from shoestring.serve.training.control import LOG, RunControl, resume_arguments

TRAIN = """
import signal, sys, time
from pathlib import Path
from shoestring.train.runs.lock import run_lock
signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
with run_lock(Path(sys.argv[1])):
    print("training", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def trainer(tmp_path, monkeypatch):
    """A program in the place of `shoestring`, which trains until it is told to stop."""
    script = tmp_path / "train.py"
    script.write_text(TRAIN)
    real = module.subprocess.Popen

    def start(command, **options):
        return real([sys.executable, str(script), *command[-1:]], **options)

    monkeypatch.setattr(module.subprocess, "Popen", start)


async def until(is_true):
    for _ in range(1000):
        if is_true():
            return
        await asyncio.sleep(0.02)
    raise AssertionError("it did not come")


def test_a_training_starts_makes_models_yield_and_stops(trainer, tmp_path):
    out, memory = tmp_path / "run", ModelMemory(lambda _: 1 << 40)
    control = RunControl(memory)

    async def course():
        control.start(out, ["rl", str(out)])
        assert control.is_training
        assert memory.yields
        watching = asyncio.create_task(control.watch())
        await until(lambda: (out / LOG).read_text() == "training\n")
        with pytest.raises(RequestError, match="going on in run already"):
            control.start(out, ["rl", str(out)])
        control.stop(out)
        await until(lambda: not control.is_training)
        await until(lambda: not memory.yields)
        watching.cancel()
        with pytest.raises(RequestError, match="no training is going on"):
            control.stop(out)

    asyncio.run(course())
    assert control.exit_code(out) == 75
    assert control.failure(out) == ""


def test_the_end_of_the_service_ends_its_trainings(trainer, tmp_path):
    out, control = tmp_path / "run", RunControl()

    async def course():
        control.start(out, ["rl", str(out)])
        await until(lambda: (out / LOG).read_text() == "training\n")
        await control.close()

    asyncio.run(course())
    assert control.exit_code(out) == 75


def test_a_training_of_another_process_is_stopped_too(trainer, tmp_path):
    out, control, other = tmp_path / "run", RunControl(), RunControl()

    async def course():
        other.start(out, ["rl", str(out)])
        await until(lambda: (out / LOG).read_text() == "training\n")
        control.stop(out)
        await until(lambda: not other.is_training)

    asyncio.run(course())


def test_a_failure_is_the_last_line_of_its_log(tmp_path, monkeypatch):
    out, control = tmp_path / "run", RunControl()
    control.start(out, ["frobnicate"])
    asyncio.run(until(lambda: not control.is_training))
    assert "frobnicate" in control.failure(out)


def test_a_log_that_is_a_link_is_not_written(tmp_path):
    (tmp_path / "run").mkdir()
    os.symlink(tmp_path / "other", tmp_path / "run" / LOG)
    with pytest.raises(Exception, match="cannot write"):
        RunControl().start(tmp_path / "run", ["rl"])
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ('[[stages]]\nname = "a"', ["rl", "--resume"]),
        ("num_generations = 4", ["rl", "--resume"]),
        ('teacher = "t"\nstudent = "s"', ["distill", "--resume"]),
        ('data = ["a.jsonl"]', ["sft", "--resume"]),
        ('data = ["a.jsonl"]\n[loss]\nloss_type = "dpo"', ["prefer", "--resume"]),
        ('data = ["a.jsonl"]\ncenter_rewards_coefficient = 0.01', ["reward-model", "--resume"]),
        ('[data]\nsources = ["a"]', ["pretrain", "--resume"]),
        ("num_generations = 4\nstages = 5", ["rl", "--resume"]),
    ],
)
def test_a_run_goes_on_with_the_verb_of_its_recipe(tmp_path, config, words):
    (tmp_path / "config.toml").write_text(config)
    assert resume_arguments(tmp_path) == [*words, "--out", str(tmp_path)]


def test_a_run_goes_on_to_the_stage_that_was_asked_for(run):
    assert resume_arguments(run)[-2:] == ["--until", "student"]
    (run / "process.json").write_text('{"until": "--out"}')
    assert "--until" not in resume_arguments(run)
    (run / "config.toml").unlink()
    with pytest.raises(RequestError, match="no recipe"):
        resume_arguments(run)
