import json
import logging
import math
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from shoestring import config as configs
from shoestring.data.corpus import DataConfig
from shoestring.errors import ConfigError, MissingDependencyError
from shoestring.evals.perplexity import heldout_bits_per_byte
from shoestring.model.hf.checkpoint import Checkpoint
from shoestring.model.hf.folder import load_model
from shoestring.tokenizer.bpe import Tokenizer
from shoestring.train import checkpoint, finish
from shoestring.train import pretrain as story
from shoestring.train.optim import OptimConfig
from shoestring.train.pretrain import pretrain
from shoestring.train.pretrain_recipe import PretrainConfig
from shoestring.train.pretrain_run import build
from shoestring.train.report import metrics
from shoestring.train.schedule import ScheduleConfig

DRAW = finish.curves.draw


@pytest.fixture(autouse=True)
def no_slow_extras(monkeypatch):
    """The peak need not be measured, nor the curves drawn, for every run."""
    monkeypatch.setattr(story, "measure_peak", lambda _: 1e9)
    monkeypatch.setattr(finish.curves, "draw", lambda *_, **__: None)


def test_a_run_equals_itself_bit_for_bit(whole, recipe, runtime, tmp_path, same_run, log_rows):
    pretrain(recipe(), runtime, tmp_path / "again", quiet=True)
    same_run(whole, tmp_path / "again")
    pretrain(recipe(seed=1), runtime, tmp_path / "other", quiet=True)
    assert log_rows(tmp_path / "other") != log_rows(whole)


def test_a_run_with_products_in_bfloat16_equals_itself(whole, recipe, runtime, tmp_path, same_run, log_rows):
    in_bf16 = recipe(precision="bf16")
    pretrain(in_bf16, runtime, tmp_path / "whole", quiet=True)
    pretrain(in_bf16, runtime, tmp_path / "again", quiet=True)
    same_run(tmp_path / "whole", tmp_path / "again")
    losses = [[row["loss"] for row in log_rows(out)] for out in (whole, tmp_path / "whole")]
    assert losses[0] != losses[1]
    assert losses[1] == pytest.approx(losses[0], rel=0.01)


def test_the_run_directory_holds_what_it_promises(recipe, runtime, tmp_path, monkeypatch):
    monkeypatch.setattr(finish.curves, "draw", DRAW)
    out = tmp_path / "run"
    report = pretrain(
        recipe(watts=50.0),
        runtime,
        out,
        quiet=True,
        on_eval=lambda model, data: (
            heldout_bits_per_byte(model, data, seq_len=32, max_tokens=2000).bits_per_byte
        ),
    )
    names = {path.name for path in out.iterdir()}
    assert names == {
        "config.toml",
        "data.json",
        "metrics.jsonl",
        "process.json",
        "receipt.json",
        "report.json",
        "curves.png",
        "tokenizer",
        "checkpoints",
        "model",
    }
    assert configs.load(PretrainConfig, out / "config.toml") == recipe(watts=50.0)
    assert json.loads((out / "report.json").read_text()) == report
    assert (out / "curves.png").read_bytes().startswith(b"\x89PNG")
    receipt = json.loads((out / "receipt.json").read_text())
    assert (receipt["tokens"], receipt["seed"]) == (recipe().total_tokens, 0)
    assert receipt["energy"]["how"] in ("estimated", "measured")
    assert report["train_flops"] == receipt["train_flops"] > 0
    rows = metrics.read(out / "metrics.jsonl")
    assert [row["step"] for row in rows] == list(range(1, report["steps"] + 1))
    assert [row["tokens"] for row in rows][-1] == report["tokens"]
    scored = [row["step"] for row in rows if "heldout_bits_per_byte" in row]
    assert scored == [6, 12]
    assert report["heldout_bits_per_byte"] == rows[-1]["heldout_bits_per_byte"]
    per_token = build(recipe(), runtime, tmp_path / "other", resume=False).bytes_per_token
    assert rows[0]["bits_per_byte"] == pytest.approx(rows[0]["loss"] / math.log(2) / per_token)


def test_the_model_is_the_last_checkpoints_and_transformers_reads_it(whole):
    transformers = pytest.importorskip("transformers")
    last = checkpoint.latest(whole / "checkpoints")
    card = (whole / "model" / "README.md").read_text()
    assert (last / "README.md").read_text() == card
    assert f"\n# shape: {whole.name}\n" in card
    assert (last / "model.safetensors").read_bytes() == (whole / "model" / "model.safetensors").read_bytes()
    ours = load_model(Checkpoint.open(whole / "model"))
    theirs = transformers.AutoModelForCausalLM.from_pretrained(whole / "model", dtype=torch.float32).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(whole / "model")
    ids = torch.tensor([tokenizer.encode("return (x): [y] while", add_special_tokens=False)])
    assert ids[0].tolist() == Tokenizer.load(whole / "model").encode("return (x): [y] while")
    with torch.no_grad():
        torch.testing.assert_close(ours(ids), theirs(ids).logits.float(), rtol=1e-4, atol=1e-5)


def test_training_learns_and_the_bias_follows_the_load(recipe, runtime, tmp_path, log_rows):
    settings = {"total_tokens": 60 * 4 * 32, "save_every": 1000, "optim": OptimConfig(name="muon", lr=3e-3)}
    pretrain(recipe(**settings), runtime, tmp_path / "run", quiet=True)
    rows = log_rows(tmp_path / "run")
    assert sum(row["loss"] for row in rows[-5:]) < 0.8 * sum(row["loss"] for row in rows[:5])
    bias = load_file(tmp_path / "run" / "model" / "model.safetensors")[
        "model.layers.1.mlp.gate.e_score_correction_bias"
    ]
    assert bias.dtype == torch.float32
    assert bias.abs().max() > 0


def test_the_first_step_is_not_wasted(recipe, runtime, tmp_path, log_rows):
    """With a long warm-up the rate rises from step 1 on, from above zero."""
    schedule = ScheduleConfig(warmup_ratio=0.5, batch_ramp_until=0.0)
    pretrain(recipe(schedule=schedule, total_tokens=12 * 4 * 32), runtime, tmp_path / "run", quiet=True)
    rates = [row["lr"] for row in log_rows(tmp_path / "run")]
    assert rates[:6] == pytest.approx([1e-3 * step / 6 for step in range(1, 7)])
    assert rates[-1] == pytest.approx(0.0332e-3)


@pytest.mark.parametrize(("budget", "taken"), [(1, 128), (128, 128), (129, 256), (1000, 1024)])
def test_the_token_budget_is_passed_by_less_than_a_step(recipe, runtime, tmp_path, budget, taken):
    schedule = ScheduleConfig(batch_ramp_until=0.0)
    changes = {"total_tokens": budget, "schedule": schedule, "optim": OptimConfig(), "save_every": 99}
    report = pretrain(recipe(**changes), runtime, tmp_path / "run", quiet=True)
    assert report["tokens"] == taken


def test_the_batch_ramp_feeds_every_row_once(recipe, runtime, tmp_path, monkeypatch, log_rows):
    """Steps grow from 1 row to 4; the rows are the loader's stream, none left out, none twice."""
    seen, real = [], story.train_step

    def watching(model, optimizers, batches, settings):
        seen.append(torch.cat([batch.inputs_BT for batch in batches]))
        return real(model, optimizers, batches, settings)

    monkeypatch.setattr(story, "train_step", watching)
    config = recipe(schedule=ScheduleConfig(batch_ramp_until=0.6, batch_start=0.25), optim=OptimConfig())
    pretrain(config, runtime, tmp_path / "run", quiet=True)
    sizes = [len(inputs) for inputs in seen]
    assert sizes == sorted(sizes) == [row["batch"] for row in log_rows(tmp_path / "run")]
    assert set(sizes) == {1, 2, 3, 4}
    loader = build(config, runtime, tmp_path / "other", resume=False).loader
    stream = torch.from_numpy(loader.next_batch(sum(sizes)).inputs)
    assert torch.equal(torch.cat(seen), stream)


def test_several_processes_may_not_overwrite_each_other(recipe, runtime, tmp_path):
    with pytest.raises(ConfigError, match="WORLD_SIZE = 2"):
        pretrain(recipe(), replace(runtime, world_size=2), tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()


def test_a_run_without_matplotlib_finishes(recipe, runtime, tmp_path, monkeypatch, caplog):
    def absent(*_, **__):
        raise MissingDependencyError("no matplotlib; install the extra `plots`")

    monkeypatch.setattr(finish.curves, "draw", absent)
    with caplog.at_level(logging.WARNING):
        pretrain(recipe(total_tokens=256), runtime, tmp_path / "run", quiet=True)
    assert "install the extra `plots`" in caplog.text
    assert (tmp_path / "run" / "report.json").is_file()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model": "no-such-model"}, "model = 'no-such-model' is neither a folder"),
        ({"seq_len": 257}, "max_position_embeddings = 256"),
        ({"data": DataConfig(sources=("/nowhere/at/all",))}, "/nowhere/at/all"),
        ({"tokenizer": "/nowhere"}, "/nowhere"),
    ],
)
def test_a_wrong_recipe_is_refused_before_training(recipe, runtime, tmp_path, changes, words):
    with pytest.raises(Exception, match=words) as caught:
        pretrain(recipe(**changes), runtime, tmp_path / "run", quiet=True)
    assert caught.type.__module__ == "shoestring.errors"
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_gradient_checkpointing_changes_no_bit_of_the_run(whole, recipe, runtime, tmp_path, same_run):
    pretrain(recipe(gradient_checkpointing=True), runtime, tmp_path / "run", quiet=True)
    same_run(whole, tmp_path / "run")
