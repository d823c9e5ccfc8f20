import json
import logging
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from shoestring import config as configs
from shoestring.errors import CheckpointError, ConfigError, NonFiniteError, Stopped
from shoestring.train import checkpoint, finish, state
from shoestring.train import pretrain as story
from shoestring.train import pretrain_run as run
from shoestring.train.optim import OptimConfig
from shoestring.train.pretrain import pretrain
from shoestring.train.pretrain_recipe import PretrainConfig
from shoestring.train.report import metrics
from shoestring.train.runs.recipe import resumed


def steps(out: Path) -> list[str]:
    return sorted(path.name for path in (out / "checkpoints").iterdir())


@pytest.fixture(autouse=True)
def no_slow_extras(monkeypatch):
    """The peak need not be measured, nor the curves drawn, for every run."""
    monkeypatch.setattr(story, "measure_peak", lambda _: 1e9)
    monkeypatch.setattr(finish.curves, "draw", lambda *_, **__: None)


@pytest.mark.parametrize("step", [1, 3, 5, 11])
def test_stop_and_resume_equal_an_unbroken_run(
    whole, recipe, runtime, tmp_path, monkeypatch, step, same_run, log_rows, stop_after
):
    out = tmp_path / "run"
    with monkeypatch.context() as patch, pytest.raises(Stopped, match=f"step {step} and saved"):  # noqa: PT012
        stop_after(patch, step)
        pretrain(recipe(), runtime, out, quiet=True)
    assert steps(out)[-1] == f"step-{step:08}"
    assert not (out / "report.json").exists()
    assert len(log_rows(out)) == step
    report = pretrain(recipe(), runtime, out, resume=True, quiet=True)
    assert report["steps"] == 12
    same_run(whole, out)
    assert json.loads((out / "receipt.json").read_text())["segments"] == 2


def test_stopping_again_and_again_equals_an_unbroken_run(
    whole, recipe, runtime, tmp_path, monkeypatch, same_run, stop_after
):
    out = tmp_path / "run"
    for number in range(11):
        with monkeypatch.context() as patch, pytest.raises(Stopped):  # noqa: PT012
            stop_after(patch, 1)
            pretrain(recipe(), runtime, out, resume=number > 0, quiet=True)
    pretrain(recipe(), runtime, out, resume=True, quiet=True)
    same_run(whole, out)


def test_a_wish_to_stop_in_the_last_step_finishes(
    whole, recipe, runtime, tmp_path, monkeypatch, same_run, stop_after
):
    stop_after(monkeypatch, 12)
    assert pretrain(recipe(), runtime, tmp_path / "run", quiet=True)["steps"] == 12
    same_run(whole, tmp_path / "run")


def test_a_damaged_checkpoint_is_passed_over(
    whole, recipe, runtime, tmp_path, monkeypatch, caplog, same_run, stop_after
):
    out = tmp_path / "run"
    with monkeypatch.context() as patch, pytest.raises(Stopped):  # noqa: PT012
        stop_after(patch, 8)
        pretrain(recipe(), runtime, out, quiet=True)
    assert steps(out) == ["step-00000006", "step-00000008"]
    weights = out / "checkpoints" / "step-00000008" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)
    with caplog.at_level(logging.WARNING):
        pretrain(recipe(), runtime, out, resume=True, quiet=True)
    assert "step-00000008 is not used" in caplog.text
    same_run(whole, out)


def test_all_checkpoints_damaged_is_an_error(whole, recipe, runtime, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(whole, out)
    for path in (out / "checkpoints").iterdir():
        (path / "trainer.safetensors").unlink()
    with pytest.raises(CheckpointError, match="every checkpoint"):
        pretrain(recipe(), runtime, out, resume=True, quiet=True)


def test_resuming_without_checkpoints_starts_from_the_beginning(
    whole, recipe, runtime, tmp_path, caplog, same_run
):
    with caplog.at_level(logging.WARNING):
        pretrain(recipe(), runtime, tmp_path / "run", resume=True, quiet=True)
    assert "no checkpoint yet" in caplog.text
    same_run(whole, tmp_path / "run")


def test_resuming_a_finished_run_only_finishes_it_again(whole, recipe, runtime, tmp_path, same_run):
    out = tmp_path / "run"
    shutil.copytree(whole, out)
    (out / "report.json").unlink()
    (out / "model" / "model.safetensors").write_bytes(b"half of i")
    report = pretrain(recipe(), runtime, out, resume=True, quiet=True)
    assert report["tokens"] == recipe().total_tokens
    same_run(whole, out)


def test_a_run_is_not_overwritten(whole, recipe, runtime, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(whole, out)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    before.pop(out / "process.json")  # says who came last
    with pytest.raises(ConfigError, match="already holds a run; --resume"):
        pretrain(recipe(seed=5), runtime, out, quiet=True)
    assert before == {path: path.read_bytes() for path in out.rglob("*") if path in before}
    assert {path for path in out.rglob("*") if path.is_file()} == {*before, out / "process.json"}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"optim": OptimConfig(name="adamw")}, "optim.name = 'adamw' cannot be set on --resume"),
        ({"seed": 3}, "seed = 3 cannot be set on --resume: the steps so far were taken with 0"),
        ({"seq_len": 16}, "seq_len = 16 cannot be set on --resume: the steps so far were taken with 32"),
        ({"model": "demo"}, "model = 'demo' cannot be set on --resume"),
    ],
)
def test_resuming_with_another_recipe_is_refused_and_keeps_the_runs_own(
    whole, recipe, runtime, tmp_path, changes, words
):
    out = tmp_path / "run"
    shutil.copytree(whole, out)
    before = (out / "config.toml").read_bytes()
    with pytest.raises(Exception, match=words) as caught:
        pretrain(recipe(**changes), runtime, out, resume=True, quiet=True)
    assert caught.type.__module__ == "shoestring.errors"
    assert (out / "config.toml").read_bytes() == before
    assert configs.load(PretrainConfig, out / "config.toml") == recipe()


def test_a_batch_that_is_not_finite_is_kept_and_nothing_is_updated(
    whole, recipe, runtime, tmp_path, monkeypatch, same_run
):
    out, real, batches = tmp_path / "run", story.train_step, []

    def poisoned(model, optimizers, parts, settings):
        batches.append(
            [
                torch.cat(tensors)
                for tensors in zip(*((p.inputs_BT, p.targets_BT) for p in parts), strict=True)
            ]
        )
        if len(batches) == 8:
            hook = model.model.norm.weight.register_hook(lambda gradient: gradient * math.inf)
            try:
                return real(model, optimizers, parts, settings)
            finally:
                hook.remove()
        return real(model, optimizers, parts, settings)

    with monkeypatch.context() as patch, pytest.raises(NonFiniteError) as caught:  # noqa: PT012
        patch.setattr(story, "train_step", poisoned)
        pretrain(recipe(), runtime, out, quiet=True)
    assert "step 8" in str(caught.value)
    assert f"--resume --out {out} --set optim.lr=" in str(caught.value)
    kept, values = state.load_state(out / "crash" / "batch")
    assert torch.equal(kept["inputs"], batches[-1][0])
    assert torch.equal(kept["targets"], batches[-1][1])
    assert values["step"] == 8
    assert steps(out)[-1] == "step-00000006"
    pretrain(recipe(), runtime, out, resume=True, quiet=True)
    same_run(whole, out)


def test_a_lower_rate_on_resume_is_taken(recipe, runtime, tmp_path, monkeypatch, log_rows, stop_after):
    out = tmp_path / "run"
    with monkeypatch.context() as patch, pytest.raises(Stopped):  # noqa: PT012
        stop_after(patch, 6)
        pretrain(recipe(), runtime, out, quiet=True)
    pretrain(recipe(optim=OptimConfig(name="muon", lr=1e-6)), runtime, out, resume=True, quiet=True)
    rates = [row["lr"] for row in log_rows(out)]
    assert max(rates[6:]) <= 1e-6 < rates[5]


def test_a_finished_run_goes_on_with_more_steps_and_its_receipt_says_so(
    whole, recipe, runtime, tmp_path, log_rows
):
    out, before = tmp_path / "run", log_rows(whole)
    shutil.copytree(whole, out)
    longer = resumed(PretrainConfig, out / "config.toml", ["total_tokens=2_048", "note=longer"])
    report = pretrain(longer, runtime, out, resume=True, quiet=True)
    rows = log_rows(out)
    assert rows[:12] == before
    assert [row["step"] for row in rows] == list(range(1, report["steps"] + 1))
    assert report["tokens"] >= 2_048
    assert configs.load(PretrainConfig, out / "config.toml") == longer
    receipt = json.loads((out / "receipt.json").read_text())
    first, second = receipt["history"]
    assert (first["step"], first["changes"]) == (12, {})
    assert second["step"] == report["steps"]
    total = recipe().total_tokens
    assert second["changes"] == {"total_tokens": [total, 2_048], "note": ["", "longer"]}
    assert report["note"] == "longer"
    assert first["end"] <= second["start"]


def test_the_log_is_on_the_disk_before_a_checkpoint_counts_on_it(recipe, runtime, tmp_path, monkeypatch):
    order = []
    real_sync, real_save = metrics.MetricsLog.sync, checkpoint.save
    monkeypatch.setattr(metrics.MetricsLog, "sync", lambda log: order.append("sync") or real_sync(log))
    monkeypatch.setattr(checkpoint, "save", lambda *a: order.append("save") or real_save(*a))
    pretrain(recipe(total_tokens=512), runtime, tmp_path / "run", quiet=True)
    assert order == ["sync", "save"] * (len(order) // 2)
    assert len(order) > 2


DRIVER = """
import sys, time
from pathlib import Path
import torch
from shoestring import config as configs
from shoestring.device import Runtime
from shoestring.errors import ShoestringError
from shoestring.train import finish
from shoestring.train import pretrain as story
from shoestring.train import pretrain_run as run
from shoestring.train.pretrain_recipe import PretrainConfig

real = story.train_step
story.train_step = lambda *a: (time.sleep(0.05), real(*a))[1]
story.measure_peak = lambda _: 1e9
finish.curves.draw = lambda *_, **__: None
run.cache_folder = lambda _: Path(sys.argv[3])
torch.set_num_threads(1)
recipe = configs.load(PretrainConfig, sys.argv[1])
runtime = Runtime(device=torch.device("cpu"), compute_dtype=torch.float32)
try:
    story.pretrain(recipe, runtime, Path(sys.argv[2]), quiet=True)
except ShoestringError as error:
    print(error)
    sys.exit(error.exit_code)
"""


def test_ctrl_c_saves_and_exits_75(whole, recipe, runtime, tmp_path, same_run):
    out = tmp_path / "run"
    configs.save(recipe(), tmp_path / "recipe.toml")
    places = (tmp_path / "recipe.toml", out, run.cache_folder("data"))
    command = [sys.executable, "-c", DRIVER, *map(str, places)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p or os.getcwd() for p in sys.path)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        deadline = time.monotonic() + 60
        while not ((out / "metrics.jsonl").is_file() and (out / "metrics.jsonl").stat().st_size):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        said = process.stdout.read()
    assert process.returncode == 75, said
    assert "saved; --resume" in said
    pretrain(recipe(), runtime, out, resume=True, quiet=True)
    same_run(whole, out)
