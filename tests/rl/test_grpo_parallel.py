"""Two processes under torchrun learn what one does, stop and skip together; any number resumes their run."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from shoestring import config as configs
from shoestring.rl import grpo as training
from shoestring.rl.losses import PolicyLossConfig
from shoestring.rl.recipe import GRPOConfig, PolicyOptim, RewardConfig, TaskShare
from shoestring.tasks import load

# One launch for all that ends well: starting Python three times costs more than the runs.
PROCESS = """
import os, sys
from pathlib import Path
import torch
from shoestring import config as configs
from shoestring.device import choose
from shoestring.errors import Stopped
from shoestring.rl import grpo as training, step as steps, update as updates
from shoestring.rl.recipe import GRPOConfig
from shoestring.tasks import load
from shoestring.train.parallel import Ranks
from shoestring.train.stop import StopRequest

load.TASKS["coin"] = "coin_task:Coin"
training.measure_peak = lambda _: 1e9
runtime, root = choose("cpu"), Path(sys.argv[1])
original = steps.update

def go(name, out="", **how):
    config = configs.load(GRPOConfig, root / f"{name}.toml")
    return training.grpo(config, runtime, root / (out or name), quiet=True, **how)

def from_call(number, act):
    def counted(*args, **kwargs):
        counted.calls += 1
        if counted.calls == number and runtime.rank == 1:
            act()
        return original(*args, **kwargs)
    counted.calls = 0
    steps.update = counted

def nan_once():
    honest = updates.answer_logprobs
    def broken(*args):
        updates.answer_logprobs = honest
        return honest(*args) * torch.nan
    updates.answer_logprobs = broken

def stop_now():
    StopRequest.is_requested = property(lambda self: True, lambda self, _: None)

with Ranks(runtime):
    if sys.argv[2] == "killed":
        from_call(4, lambda: os._exit(9))
        go("plain", "killed")
    for name in sys.argv[2].split():
        report = go(name)
        assert bool(report) == (runtime.rank == 0)
    from_call(2, nan_once)
    go("plain", "nan")
    from_call(1, stop_now)
    try:
        go("plain", "stopped")
    except Stopped:
        StopRequest.is_requested = False
    else:
        raise AssertionError("it went on")
    steps.update = original
    go("plain", "stopped", resume=True)
"""

CHANGES = {
    "plain": {},
    "deep": {
        "steps_per_generation": 2,
        "dynamic_sampling": 1,
        "num_prompts": 4,
        "loss": PolicyLossConfig(loss_type="dapo", beta=0.01),
        "ref_model_sync_steps": 2,
        "reward": RewardConfig(format=0.5),
    },
    "lonely": {
        "num_prompts": 1,
        "steps": 2,
        "num_generations": 8,
    },  # a question that the first process does not get
}
TIMED = ("sample_s", "update_s", "samples_per_s", "tokens_per_s")


def launch(root: Path, what: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", "2", "--no-python", sys.executable, "-W", "error"]
    paths = os.pathsep.join((str(Path(__file__).parents[2]), str(root)))
    return subprocess.run(
        [*command, str(root / "process.py"), str(root), what],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=900,
    )


@pytest.fixture
def root(tmp_path, student_folder, coin_source, monkeypatch) -> Path:
    """A folder with the recipes, the task and the program of a process; the task is known here too."""
    nearly_every_group_disagrees = coin_source("float(sum(text.encode()) % 2)")
    (tmp_path / "coin_task.py").write_text(nearly_every_group_disagrees)
    (tmp_path / "process.py").write_text(PROCESS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(load.TASKS, "coin", "coin_task:Coin")
    monkeypatch.delitem(sys.modules, "coin_task", raising=False)
    monkeypatch.setattr(training, "measure_peak", lambda _: 1e9)
    for name, changes in CHANGES.items():
        settings = {
            "model": str(student_folder),
            "tasks": (TaskShare(name="coin"),),
            "steps": 4,
            "num_prompts": 3,
            "num_generations": 4,
            "max_tokens": 8,
            "save_every": 2,
            "eval_every": 2,
            "optim": PolicyOptim(lr=3e-3, eps=1e-3),  # Adam would make a step of the rounding of a gradient
        }
        (tmp_path / f"{name}.toml").write_text(configs.dumps(GRPOConfig(**settings | changes)))
    return tmp_path


def alone(root: Path, runtime, name: str, out: str, **how) -> Path:
    config = configs.load(GRPOConfig, root / f"{name}.toml")
    training.grpo(config, runtime, root / out, quiet=True, **how)
    return root / out


def rows(out: Path) -> list[dict]:
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name not in TIMED} for row in lines]


def assert_same_run(ours: Path, theirs: Path) -> None:
    for mine, other in zip(rows(ours), rows(theirs), strict=True):
        assert mine.keys() == other.keys()
        for name in mine:
            assert mine[name] == pytest.approx(other[name], rel=1e-3, abs=1e-5), name
        for name in ("reward", "accuracy", "answer_tokens", "truncated", "solved_by_any", "tokens"):
            assert mine[name] == other[name], name
    first, second = (load_file(out / "model" / "model.safetensors") for out in (ours, theirs))
    for name in second:
        torch.testing.assert_close(first[name], second[name], rtol=0, atol=1e-5)
    mine, other = (json.loads((out / "report.json").read_text()) for out in (ours, theirs))
    assert [mine[n] for n in ("answers", "tokens", "train_flops")] == pytest.approx(
        [other[n] for n in ("answers", "tokens", "train_flops")]
    )


def test_two_processes_learn_what_one_does_and_stop_and_skip_together(root, runtime, student_folder) -> None:
    done = launch(root, " ".join(CHANGES))
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stderr == ""
    for name in CHANGES:
        assert_same_run(root / name, alone(root, runtime, name, f"{name}-alone"))
    assert_same_run(root / "stopped", root / "plain")
    assert [row["skipped"] for row in rows(root / "nan")] == [0, 1, 0, 0]
    assert json.loads((root / "plain" / "receipt.json").read_text())["machine"]["processes"] == 2
    start = load_file(student_folder / "model.safetensors")
    learned = load_file(root / "plain" / "model" / "model.safetensors")
    assert max(float((learned[name] - start[name]).abs().max()) for name in start) > 1e-3


def test_a_process_that_dies_ends_the_run_and_one_alone_goes_on_with_it(root, runtime) -> None:
    done = launch(root, "killed")
    assert done.returncode != 0
    assert "lost the others" in done.stderr or "exitcode  : 9" in done.stderr
    alone(root, runtime, "plain", "killed", resume=True)
    assert_same_run(root / "killed", alone(root, runtime, "plain", "whole"))
