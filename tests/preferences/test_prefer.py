"""Runs of learning from preferences: what they leave, learn, resume and refuse."""

import json
import math
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from shoestring import config as configs
from shoestring.errors import CheckpointError, ConfigError, DataError, NonFiniteError, Stopped
from shoestring.model.hf.checkpoint import Checkpoint
from shoestring.model.hf.folder import load_model
from shoestring.model.hf.merge import merge_adapter
from shoestring.model.lora import LoraConfig
from shoestring.model.packed.quantize import quantize_checkpoint
from shoestring.preferences import trainer as story
from shoestring.preferences.encode import load_preferences
from shoestring.preferences.logps import answer_logprobs
from shoestring.preferences.losses import PreferenceLossConfig
from shoestring.preferences.prefer import prefer
from shoestring.preferences.recipe import PreferenceConfig, PreferenceOptim
from shoestring.train.report import metrics

every_loss = pytest.mark.parametrize("loss_type", ["dpo", "ipo", "simpo", "kto", "orpo"])


def weights(out: Path) -> dict[str, torch.Tensor]:
    return load_file(out / "model" / "model.safetensors")


def log(out: Path) -> list[dict]:
    times = ("tokens_per_s", "peak_share")
    rows = metrics.read(out / "metrics.jsonl")
    return [{name: value for name, value in row.items() if name not in times} for row in rows]


def assert_same(one: Path, other: Path) -> None:
    first, second = weights(one), weights(other)
    assert first.keys() == second.keys()
    assert [name for name in first if not torch.equal(first[name], second[name])] == []
    assert log(one) == log(other)


def test_a_run_leaves_what_it_promises(recipe, runtime, pairs, tmp_path):
    out = tmp_path / "run"
    report = prefer(recipe(watts=40.0), runtime, out, quiet=True)
    names = {"config.toml", "data.json", "metrics.jsonl", "process.json", "receipt.json", "reference.json"}
    assert {path.name for path in out.iterdir()} == names | {
        "report.json",
        "tokenizer",
        "checkpoints",
        "model",
    }
    assert configs.load(PreferenceConfig, out / "config.toml") == recipe(watts=40.0)
    assert json.loads((out / "report.json").read_text()) == report
    assert (report["preferences"], report["heldout_preferences"]) == (36, 4)
    assert report["steps"] == len(log(out)) == 9
    assert [row["step"] for row in log(out) if "heldout_loss" in row] == [4, 8, 9]
    assert {"rewards/chosen", "rewards/rejected", "rewards/margins", "logps/chosen"} <= log(out)[0].keys()
    assert log(out)[0]["heldout_loss_at_start"] == pytest.approx(math.log(2))
    receipt = json.loads((out / "receipt.json").read_text())
    assert receipt["data"]["files"][0]["path"] == pairs.name
    assert receipt["tokens"] == report["tokens"] > 0
    card = (out / "model" / "README.md").read_text()
    assert all(part in card for part in (receipt["data"]["files"][0]["sha256"], "(dpo, beta 0.1)"))


@every_loss
def test_every_loss_learns_the_preference(recipe, runtime, tmp_path, loss_type):
    config = recipe(loss_type, epochs=4.0, optim=PreferenceOptim(lr=3e-3), heldout_fraction=0.2)
    report = prefer(config, runtime, tmp_path / "run", quiet=True)
    assert report["heldout_rewards/accuracies"] == 1.0
    assert report["heldout_rewards/margins"] > report["heldout_rewards/margins_at_start"]
    assert report["train_loss"] < 0.9 * report["train_loss_at_start"]
    rates = [row["lr"] for row in log(tmp_path / "run")]
    assert max(rates) == pytest.approx(3e-3)
    assert rates[0] < 2e-3
    assert rates[-1] < 4e-4


@pytest.mark.parametrize(("loss_type", "expected"), [("dpo", math.log(2)), ("ipo", 25.0), ("kto", 0.5)])
@pytest.mark.parametrize("rank", [0, 4])
def test_the_run_is_its_own_reference_at_its_start(
    recipe, runtime, base, tmp_path, loss_type, expected, rank
):
    """The reference is the base without adapters: rewards are 0 and losses those of no preference."""
    config = recipe(loss_type, lora=LoraConfig(rank=rank))
    prefer(config, runtime, tmp_path / "run", quiet=True)
    first, *_, last = log(tmp_path / "run")
    assert first["loss"] == pytest.approx(expected, rel=1e-5)
    assert first["rewards/chosen"] == pytest.approx(0.0, abs=1e-5)
    assert last["rewards/chosen"] != pytest.approx(0.0, abs=1e-3)
    files, kind = Checkpoint.open(base), "answers" if loss_type == "kto" else "pairs"
    data = load_preferences(config, files.tokenizer, files.template, kind)
    stored = json.loads((tmp_path / "run" / "reference.json").read_text())["logp"]
    (batch,) = data.batches(range(len(data)), 10**9, runtime.device)
    with torch.no_grad():
        expected_logp = answer_logprobs(load_model(files), batch.rows)
    torch.testing.assert_close(torch.tensor(stored)[batch.numbers], expected_logp, rtol=0, atol=1e-4)


@pytest.mark.parametrize(("loss_type", "rank"), [("dpo", 0), ("dpo", 2), ("kto", 2), ("orpo", 0)])
def test_a_stopped_run_goes_on_to_the_same_end(recipe, runtime, tmp_path, monkeypatch, loss_type, rank):
    config = recipe(loss_type, lora=LoraConfig(rank=rank))
    prefer(config, runtime, tmp_path / "whole", quiet=True)
    real, calls = story.clip_and_step, []

    def with_signal(*arguments, **settings):
        calls.append(1)
        if len(calls) in (1, 3):
            os.kill(os.getpid(), signal.SIGINT)
        return real(*arguments, **settings)

    monkeypatch.setattr(story, "clip_and_step", with_signal)
    for resume in (False, True):
        with pytest.raises(Stopped, match="--resume"):
            prefer(config, runtime, tmp_path / "run", quiet=True, resume=resume)
    report = prefer(config, runtime, tmp_path / "run", quiet=True, resume=True)
    assert json.loads((tmp_path / "run" / "receipt.json").read_text())["segments"] == 3
    assert report["steps"] == len(log(tmp_path / "run"))
    assert_same(tmp_path / "whole", tmp_path / "run")


def test_sizes_that_are_left_out_fit_the_data_and_the_model(recipe, runtime, tmp_path):
    """Few pairs make small steps: many of them are needed to learn anything."""
    report = prefer(recipe(batch_size=0, micro_tokens=0, seq_len=0), runtime, tmp_path / "run", quiet=True)
    config = configs.load(PreferenceConfig, tmp_path / "run" / "config.toml")
    assert (config.batch_size, config.seq_len, report["steps"]) == (2, 256, 18)
    assert config.micro_tokens >= 256
    assert config.optim.lr == 1e-3
    assert PreferenceConfig(model="a", data=("b",)).optim.lr == 1e-6
    assert PreferenceConfig(model="a", data=("b",), lora=LoraConfig(rank=8)).optim.lr == 1e-5


def test_the_memory_limit_changes_no_result(recipe, runtime, tmp_path):
    for name, tokens in (("small", 40), ("large", 10_000)):
        prefer(recipe("orpo", micro_tokens=tokens), runtime, tmp_path / name, quiet=True)
    small, large = (log(tmp_path / name) for name in ("small", "large"))
    assert [row["loss"] for row in small] == pytest.approx([row["loss"] for row in large], rel=1e-3)


def test_lora_leaves_an_adapter_and_the_merged_model(recipe, runtime, base, tmp_path):
    out = tmp_path / "run"
    report = prefer(recipe(lora=LoraConfig(rank=4), optim=PreferenceOptim(lr=2e-2)), runtime, out, quiet=True)
    assert report["parameters_trained"] < 0.5 * report["parameters_total"]
    merge_adapter(out / "adapter", tmp_path / "merged")
    ids = torch.arange(40)[None]
    with torch.no_grad():
        ours, merged, before = (
            load_model(Checkpoint.open(folder))(ids) for folder in (out / "model", tmp_path / "merged", base)
        )
    assert (ours - before).abs().max() > 1e-2
    torch.testing.assert_close(ours, merged, rtol=0, atol=1e-5)


@pytest.mark.parametrize("form", ["int8", "int4"])
def test_packed_weights_take_adapters_too(recipe, runtime, base, tmp_path, form):
    quantize_checkpoint(Checkpoint.open(base), tmp_path / form, form)
    config = recipe(model=str(tmp_path / form), lora=LoraConfig(rank=4), optim=PreferenceOptim(lr=2e-2))
    prefer(config, runtime, tmp_path / "run", quiet=True)
    first, *_, last = log(tmp_path / "run")
    assert first["rewards/chosen"] == pytest.approx(0.0, abs=1e-5)
    assert last["loss"] < first["loss"]
    assert Checkpoint.open(tmp_path / "run" / "model").quantization is None


def test_kto_takes_single_labels_and_warns_where_they_are_uneven(recipe, runtime, tmp_path, caplog):
    rows = [
        {"prompt": f"{i} + 1", "completion": "2" if i % 3 else "no", "label": bool(i % 3)} for i in range(24)
    ]
    data = tmp_path / "labels.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    report = prefer(recipe("kto", data=(str(data),), epochs=4.0), runtime, tmp_path / "run", quiet=True)
    assert "16 answers are desirable and 8 are not" in caplog.text
    assert "--set loss.undesirable_weight=2" in caplog.text
    assert report["preferences"] + report["heldout_preferences"] == 24
    assert report["train_loss"] < report["train_loss_at_start"]
    assert all("kl" in row for row in log(tmp_path / "run"))


def test_a_run_does_not_go_on_with_another_reference(recipe, runtime, tmp_path):
    out = tmp_path / "run"
    prefer(recipe(), runtime, out, quiet=True)
    values = json.loads((out / "reference.json").read_text())
    for broken in (json.dumps(values | {"key": "other"}), "{", json.dumps([])):
        (out / "reference.json").write_text(broken)
        with pytest.raises(CheckpointError, match="is not the reference that this run began with"):
            prefer(recipe(), runtime, out, quiet=True, resume=True)


def test_a_broken_step_keeps_its_batch(recipe, runtime, tmp_path, monkeypatch):
    def broken(*_, **__):
        raise NonFiniteError("the loss is nan")

    monkeypatch.setattr(story, "clip_and_step", broken)
    with pytest.raises(NonFiniteError, match="step 1: the loss is nan, and nothing was updated"):
        prefer(recipe(), runtime, tmp_path / "run", quiet=True)
    assert len(load_file(tmp_path / "run" / "crash" / "batch.safetensors")) == 2 * 2 * 4


def test_runs_are_not_mixed(recipe, runtime, tmp_path, pairs):
    mine = tmp_path / "mine.jsonl"
    mine.write_text(pairs.read_text())
    config = recipe("simpo", data=(str(mine),))
    prefer(config, runtime, tmp_path / "run", quiet=True)
    with pytest.raises(ConfigError, match="already holds a run"):
        prefer(config, runtime, tmp_path / "run", quiet=True)
    with pytest.raises(ConfigError, match="batch_size = 5 cannot be set on --resume"):
        prefer(replace(config, batch_size=5), runtime, tmp_path / "run", quiet=True, resume=True)
    with pytest.raises(ConfigError, match="WORLD_SIZE = 2"):
        prefer(recipe(), replace(runtime, world_size=2), tmp_path / "other", quiet=True)
    mine.write_text("".join(pairs.read_text().splitlines(keepends=True)[:20]))
    with pytest.raises(DataError, match="changed since the run was saved"):
        prefer(config, runtime, tmp_path / "run", quiet=True, resume=True)


@pytest.mark.parametrize(
    "wrong",
    [
        {"data": ()},
        {"epochs": 0.0},
        {"batch_size": -1},
        {"heldout_fraction": 1.0},
        {"warmup_ratio": math.nan},
        {"seed": -1},
        {"overlong": "cut"},
        {"watts": 0.0},
        {"loss": PreferenceLossConfig(loss_type="kto"), "batch_size": 1},
    ],
)
def test_wrong_values_name_their_field(recipe, wrong):
    with pytest.raises(ConfigError, match=list(wrong)[-1]):
        recipe(**wrong)
