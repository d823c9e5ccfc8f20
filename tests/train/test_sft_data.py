"""Fine-tuning runs on mixtures, with held-out files and early stopping."""

import json
import math
import os
import shutil
import signal
import tomllib

import pytest

from shoestring import config as configs
from shoestring.data.chat.mixture import DataSource
from shoestring.errors import CheckpointError, Stopped
from shoestring.model.hf.checkpoint import Checkpoint
from shoestring.model.hf.folder import load_model
from shoestring.model.lora import LoraConfig
from shoestring.train import finish
from shoestring.train import sft as story
from shoestring.train.report import metrics
from shoestring.train.sft import sft
from shoestring.train.sft_recipe import SFTConfig, SFTOptim


@pytest.fixture(autouse=True)
def no_slow_extras(monkeypatch):
    monkeypatch.setattr(story, "measure_peak", lambda _: 1e9)
    monkeypatch.setattr(finish.curves, "draw", lambda *_, **__: None)


def stopped_at(monkeypatch, *steps):
    """Ctrl-C during each of these calls of a step."""
    real, calls = story.train_step, []

    def with_signal(*arguments):
        calls.append(1)
        if len(calls) in steps:
            os.kill(os.getpid(), signal.SIGINT)
        return real(*arguments)

    monkeypatch.setattr(story, "train_step", with_signal)


@pytest.mark.parametrize("rank", [0, 2])
def test_early_stopping_keeps_the_best_model_and_resumes_bit_for_bit(
    sft_recipe, runtime, tmp_path, monkeypatch, same_run, rank
):
    """The held-out answers are others, which the model soon thinks less likely."""
    other = [{"role": "user", "content": "what is 1"}, {"role": "assistant", "content": "123 + 123 + 123"}]
    (tmp_path / "other.jsonl").write_text(json.dumps({"messages": other}) + "\n")
    held_out = {"heldout": (str(tmp_path / "other.jsonl"),), "heldout_fraction": 0.0}
    settings = {"early_stopping_patience": 2, "eval_every": 1, "save_every": 2, "epochs": 9.0, **held_out}
    config = sft_recipe(lora=LoraConfig(rank=rank), optim=SFTOptim(lr=0.03), **settings)
    report = sft(config, runtime, tmp_path / "whole", quiet=True)
    scores = [row["heldout_bits_per_byte"] for row in metrics.read(tmp_path / "whole" / "metrics.jsonl")]
    best = min(range(len(scores)), key=lambda step: (scores[step], step)) + 1
    assert (report["best_step"], report["steps"], report["tokens"]) == (best, best + 2, report["tokens"])
    assert report["heldout_bits_per_byte"] == scores[best - 1] == min(scores)
    run = story.build(config, runtime, tmp_path / "whole", resume=True)
    assert run.is_finished
    assert run.tokens < run.total_tokens
    model = load_model(Checkpoint.open(tmp_path / "whole" / "model"))
    batches = list(run.heldout_data.batches(run.heldout, 120))
    trainer = story.SFTTrainer(run, runtime)
    nll = story.summed_nll(model, trainer._on_device(batches))
    text_bytes = int(run.heldout_data.text_bytes[run.heldout].sum())
    assert nll / math.log(2) / text_bytes == pytest.approx(min(scores), abs=1e-5)  # a merged adapter rounds
    stopped_at(monkeypatch, best, best + 1)
    for resume in (False, True):
        with pytest.raises(Stopped):
            sft(config, runtime, tmp_path / "run", quiet=True, resume=resume)
    assert sft(config, runtime, tmp_path / "run", quiet=True, resume=True)["best_step"] == best
    same_run(tmp_path / "whole", tmp_path / "run")


def test_too_few_evaluations_for_early_stopping_are_a_warning(sft_recipe, runtime, tmp_path, caplog):
    config = sft_recipe(early_stopping_patience=3, eval_every=50, epochs=1.0)
    run = story.build(config, runtime, tmp_path / "run", resume=False)
    (warning,) = [r.getMessage() for r in caplog.records if "early_stopping_patience = 3" in r.getMessage()]
    every = int(warning.rpartition("--set eval_every=")[2])
    steps = round(run.total_tokens / config.batch_tokens)
    assert steps // every > 3 or every == 1


def test_a_best_model_that_is_gone_is_one_sentence(sft_recipe, runtime, tmp_path):
    settings = {"early_stopping_patience": 1, "eval_every": 1, "epochs": 9.0}
    config = sft_recipe(optim=SFTOptim(lr=0.3), **settings)
    sft(config, runtime, tmp_path / "run", quiet=True)
    shutil.rmtree(tmp_path / "run" / "best")
    with pytest.raises(CheckpointError, match=r"the best model, .*step-\d+, is gone"):
        sft(config, runtime, tmp_path / "run", quiet=True, resume=True)


def test_held_out_files_are_scored_and_not_learned(sft_recipe, runtime, talks, tmp_path, caplog):
    lines = talks.read_text().splitlines(keepends=True)
    (tmp_path / "train.jsonl").write_text("".join(lines[:30]))
    (tmp_path / "other.jsonl").write_text("".join([*lines[31:40], lines[0]]))
    config = sft_recipe(
        data=(str(tmp_path / "train.jsonl"),),
        heldout=(str(tmp_path / "other.jsonl"),),
        heldout_fraction=0.0,
        epochs=1.0,
    )
    report = sft(config, runtime, tmp_path / "run", quiet=True)
    assert (report["conversations"], report["heldout_conversations"]) == (30, 10)
    assert report["heldout_bits_per_byte"] is not None
    assert "of the 10 held-out conversations are learned from, too" in caplog.text
    manifest = json.loads((tmp_path / "run" / "data.json").read_text())
    assert [file["path"] for file in manifest["heldout_files"]] == ["other.jsonl"]
    assert configs.load(SFTConfig, tmp_path / "run" / "config.toml").heldout == config.heldout


def test_a_mixture_resumes_bit_for_bit(sft_recipe, runtime, talks, tmp_path, monkeypatch, same_run):
    rows = [f"what is {i},ok\n" for i in range(12)]
    (tmp_path / "sums.csv").write_text("ask,reply\n" + "".join(rows))
    columns = {"prompt": "ask", "completion": "reply"}
    sums = DataSource(path=str(tmp_path / "sums.csv"), weight=2.5, columns=columns)
    config = sft_recipe(data=(DataSource(path=str(talks), weight=0.5), sums), heldout_fraction=0.0)
    assert configs.build(SFTConfig, tomllib.loads(configs.dumps(config))) == config
    sft(config, runtime, tmp_path / "whole", quiet=True)
    stopped_at(monkeypatch, 2, 4)
    for resume in (False, True):
        with pytest.raises(Stopped):
            sft(config, runtime, tmp_path / "run", quiet=True, resume=resume)
    report = sft(config, runtime, tmp_path / "run", quiet=True, resume=True)
    same_run(tmp_path / "whole", tmp_path / "run")
    receipt = (tmp_path / "run" / "receipt.json").read_text()
    assert str(tmp_path) not in receipt
    assert report["too_long"] == 1


def test_a_data_set_of_the_hub_is_learned_from_the_cache(sft_recipe, runtime, talks, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    cache, commit = tmp_path / "hub" / "datasets--org--name", "a" * 40
    (cache / "refs").mkdir(parents=True)
    (cache / "refs" / "v1").write_text(commit)
    for split in ("train", "test"):
        file = cache / "snapshots" / commit / "data" / f"{split}-00000-of-00001.jsonl"
        file.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(talks, file)
    names = {"data": ("org/name@v1",), "heldout": ("org/name@v1:test",), "heldout_fraction": 0.0}
    report = sft(sft_recipe(epochs=1.0, **names), runtime, tmp_path / "run", quiet=True)
    assert (report["conversations"], report["heldout_conversations"]) == (48, 48)
    manifest = json.loads((tmp_path / "run" / "data.json").read_text())
    assert manifest["files"][0]["path"] == "org/name@v1/data/train-00000-of-00001.jsonl"
