"""Fine-tuning runs: what they leave, learn, resume and refuse."""

import json
import math
import os
import re
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from shoestring import config as configs
from shoestring.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    NonFiniteError,
    OutOfMemoryError,
    Stopped,
)
from shoestring.model.hf import peft
from shoestring.model.hf.checkpoint import Checkpoint
from shoestring.model.hf.folder import load_model
from shoestring.model.hf.merge import merge_adapter
from shoestring.model.lora import LoraConfig
from shoestring.tokenizer.bpe import Tokenizer
from shoestring.tokenizer.chat.deepseek import DeepSeekTemplate
from shoestring.tokenizer.chat.load import load_template
from shoestring.train import checkpoint, finish
from shoestring.train import sft as story
from shoestring.train.report import metrics
from shoestring.train.runs.recipe import resumed
from shoestring.train.sft import sft
from shoestring.train.sft_recipe import SFTConfig, SFTOptim, SFTSchedule

CHATML = (
    "{% for m in messages %}{{ '<s>' + m.role + '\\n' + m.content + '<e>' + '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<s>assistant\\n' }}{% endif %}"
)


@pytest.fixture(autouse=True)
def no_slow_extras(monkeypatch):
    monkeypatch.setattr(story, "measure_peak", lambda _: 1e9)
    monkeypatch.setattr(finish.curves, "draw", lambda *_, **__: None)


@pytest.fixture
def recipe(sft_recipe):
    return sft_recipe


def weights(out: Path) -> dict[str, torch.Tensor]:
    return load_file(out / "model" / "model.safetensors")


def rows(out: Path) -> list[dict]:
    return [{k: v for k, v in row.items() if k not in ("tokens_per_s", "peak_share")} for row in log(out)]


def log(out: Path) -> list[dict]:
    return metrics.read(out / "metrics.jsonl")


def assert_same(one: Path, other: Path) -> None:
    first, second = weights(one), weights(other)
    assert first.keys() == second.keys()
    assert [name for name in first if not torch.equal(first[name], second[name])] == []
    assert rows(one) == rows(other)


def test_a_run_leaves_what_it_promises(recipe, runtime, base, talks, tmp_path):
    out = tmp_path / "run"
    report = sft(recipe(watts=40.0), runtime, out, quiet=True, on_eval=lambda model: {"mine": 0.5})
    names = {"config.toml", "data.json", "metrics.jsonl", "process.json", "receipt.json"}
    names |= {"report.json", "tokenizer"}
    assert {path.name for path in out.iterdir()} == names | {"checkpoints", "model"}
    assert configs.load(SFTConfig, out / "config.toml") == recipe(watts=40.0)
    assert json.loads((out / "report.json").read_text()) == report
    assert (report["too_long"], report["heldout_conversations"]) == (1, 48 - report["conversations"])
    assert 5 <= report["heldout_conversations"] <= 6
    assert report["parameters_trained"] == report["parameters_total"]
    scored = [row["step"] for row in log(out) if "mine" in row]
    assert scored == [*range(4, report["steps"], 4), report["steps"]]
    assert report["heldout_bits_per_byte"] == log(out)[-1]["heldout_bits_per_byte"] > 0
    before = [
        row["heldout_bits_per_byte_at_start"] for row in log(out) if "heldout_bits_per_byte_at_start" in row
    ]
    assert before == [report["heldout_bits_per_byte_at_start"]]
    assert before[0] > report["heldout_bits_per_byte"]
    assert 0 <= report["padding"] <= 0.1
    receipt = json.loads((out / "receipt.json").read_text())
    assert receipt["data"]["files"][0]["path"] == talks.name
    assert receipt["tokens"] == report["tokens"] > 0
    card = (out / "model" / "README.md").read_text()
    start = next(iter(receipt["data"]["start"]["sha256"].values()))
    for part in (receipt["data"]["files"][0]["sha256"], start, talks.name, "the assistant turns"):
        assert part in card
    assert str(base.parent) not in card
    tokenizer = Tokenizer.load(out / "model")
    assert isinstance(load_template(out / "model", tokenizer), DeepSeekTemplate)


def test_training_learns_and_passes_the_data_as_often_as_asked(recipe, runtime, tmp_path):
    config = recipe(epochs=6.0, optim=SFTOptim(lr=5e-3), heldout_fraction=0.2, save_every=1000)
    report = sft(config, runtime, tmp_path / "run", quiet=True)
    assert report["train_loss"] < 0.6 * report["train_loss_at_start"]
    heldout = [
        row["heldout_bits_per_byte"] for row in log(tmp_path / "run") if "heldout_bits_per_byte" in row
    ]
    assert heldout[-1] < heldout[0]
    assert sum(row["batch"] for row in log(tmp_path / "run")) == 6 * report["conversations"]
    rates = [row["lr"] for row in log(tmp_path / "run")]
    assert rates[-1] == pytest.approx(0.1 * 5e-3)
    assert max(rates) == pytest.approx(5e-3, rel=0.05)


def test_a_token_budget_replaces_epochs(recipe, runtime, tmp_path):
    report = sft(recipe(total_tokens=1000), runtime, tmp_path / "run", quiet=True)
    assert report["steps"] == 3
    assert abs(report["tokens"] - 1000) < 60


@pytest.mark.parametrize("rank", [0, 2])
def test_a_stopped_run_goes_on_to_the_same_end(recipe, runtime, tmp_path, monkeypatch, rank):
    config = recipe(lora=LoraConfig(rank=rank), optim=SFTOptim(name="muon", lr=1e-3))
    sft(config, runtime, tmp_path / "whole", quiet=True)
    real, calls = story.train_step, []

    def with_signal(*arguments):
        calls.append(1)
        if len(calls) in (1, 3):
            os.kill(os.getpid(), signal.SIGINT)
        return real(*arguments)

    monkeypatch.setattr(story, "train_step", with_signal)
    for resume in (False, True):
        with pytest.raises(Stopped, match="--resume"):
            sft(config, runtime, tmp_path / "run", quiet=True, resume=resume)
    report = sft(config, runtime, tmp_path / "run", quiet=True, resume=True)
    assert json.loads((tmp_path / "run" / "receipt.json").read_text())["segments"] == 3
    assert report["steps"] == len(log(tmp_path / "run"))
    assert_same(tmp_path / "whole", tmp_path / "run")
    before = weights(tmp_path / "run")
    sft(config, runtime, tmp_path / "run", quiet=True, resume=True)
    assert all(torch.equal(before[name], tensor) for name, tensor in weights(tmp_path / "run").items())


@pytest.mark.parametrize("where", ["step", "save"])
def test_a_run_that_dies_goes_on_to_the_same_end(recipe, runtime, tmp_path, monkeypatch, where):
    """The log is then ahead of the newest checkpoint, and the order of the data behind it."""
    config = recipe(save_every=2)
    sft(config, runtime, tmp_path / "whole", quiet=True)
    part, calls = {"step": (story, "train_step"), "save": (checkpoint, "_seal")}[where], []
    real = getattr(*part)

    def dying(*arguments):
        calls.append(1)
        if len(calls) == {"step": 4, "save": 2}[where]:
            raise MemoryError
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(*part, dying)
        with pytest.raises(OutOfMemoryError if where == "step" else MemoryError):
            sft(config, runtime, tmp_path / "run", quiet=True)
    assert len(log(tmp_path / "run")) > checkpoint.step_of(
        checkpoint.latest(tmp_path / "run" / "checkpoints")
    )
    sft(config, runtime, tmp_path / "run", quiet=True, resume=True)
    assert_same(tmp_path / "whole", tmp_path / "run")


def test_lora_trains_and_saves_adapters_and_writes_them_merged(recipe, runtime, base, tmp_path):
    config = recipe(lora=LoraConfig(rank=4), optim=SFTOptim(lr=2e-2), epochs=4.0)
    out = tmp_path / "run"
    report = sft(config, runtime, out, quiet=True)
    assert report["train_loss"] < 0.9 * report["train_loss_at_start"]
    assert report["parameters_trained"] < 0.5 * report["parameters_total"]
    saved = {path.name for path in checkpoint.latest(out / "checkpoints").iterdir()}
    assert peft.WEIGHTS in saved
    assert "model.safetensors" not in saved
    merge_adapter(out / "adapter", tmp_path / "merged")
    ids = torch.arange(40)[None]
    with torch.no_grad():
        first, second = (
            load_model(Checkpoint.open(out / "model"))(ids),
            load_model(Checkpoint.open(tmp_path / "merged"))(ids),
        )
        assert (first - load_model(Checkpoint.open(base))(ids)).abs().max() > 1e-2
    torch.testing.assert_close(first, second, rtol=0, atol=1e-6)
    assert (tmp_path / "merged" / "chat_template.jinja").is_file()
    assert "LoRA of rank 4, merged" in (out / "model" / "README.md").read_text()
    before, after = load_file(base / "model.safetensors"), weights(out)
    still = {name for name in after if torch.equal(before[name], after[name])}
    assert "model.embed_tokens.weight" in still
    assert any(name.startswith("model.layers.2.") for name in still)  # the MTP module


def test_a_resumed_adapter_needs_the_base_it_began_on(recipe, runtime, base, tmp_path, monkeypatch):
    mine = tmp_path / "mine"
    shutil.copytree(base, mine)
    config = recipe(model=str(mine), lora=LoraConfig(rank=2))
    sft(config, runtime, tmp_path / "run", quiet=True)
    data = bytearray((mine / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (mine / "model.safetensors").write_bytes(data)
    with pytest.raises(CheckpointError, match="is not what this run's adapter began on"):
        sft(config, runtime, tmp_path / "run", quiet=True, resume=True)


def test_a_template_of_one_s_own_stops_at_its_own_token(recipe, runtime, base, tmp_path):
    """A ChatML template on a tokenizer that knows its tokens: they end the turn, so generation must too."""
    from shoestring.tokenizer.definition import train

    definition = train(["what is 1 + 2 yes ok"] * 3, 290, 2)
    first = max([*definition["model"]["vocab"].values(), *(t["id"] for t in definition["added_tokens"])]) + 1
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    for number, spelling in enumerate(("<s>", "<e>")):
        definition["added_tokens"].append({"id": first + number, "content": spelling, **plain})
    tokenizer = Tokenizer(definition, {"bos_token": "<s>", "eos_token": "<s>"})
    (tmp_path / "tokens").mkdir()
    tokenizer.save(tmp_path / "tokens")
    (tmp_path / "chatml.jinja").write_text(CHATML)
    config = recipe(tokenizer=str(tmp_path / "tokens"), template=str(tmp_path / "chatml.jinja"), epochs=1.0)
    with pytest.raises(DataError, match=r"does not write the reasoning_content .* --set thinking=inline"):
        sft(config, runtime, tmp_path / "without", quiet=True)
    config = replace(config, thinking="inline")
    sft(config, runtime, tmp_path / "run", quiet=True)
    out = tmp_path / "run" / "model"
    assert (out / "chat_template.jinja").read_text() == CHATML
    old = load_model(Checkpoint.open(base)).config.eos_token_id
    assert load_model(Checkpoint.open(out)).config.eos_token_id == (old, tokenizer.special_id("<e>"))
    assert (
        tokenizer.special_id("<e>")
        in json.loads((out / "generation_config.json").read_text())["eos_token_id"]
    )


def test_random_weights_start_from_a_preset_and_a_tokenizer(recipe, runtime, base, tmp_path):
    tokenizer = tmp_path / "tokens"
    tokenizer.mkdir()
    Tokenizer.train(["what is"], 256 + 30).save(tokenizer)
    config = recipe(model="demo", tokenizer=str(tokenizer), learn="all", total_tokens=200)
    report = sft(config, runtime, tmp_path / "run", quiet=True)
    assert report["train_loss"] == pytest.approx(math.log(4096), rel=0.1)
    assert "random weights" in (tmp_path / "run" / "model" / "README.md").read_text()


def test_a_broken_step_keeps_its_batch(recipe, runtime, tmp_path, monkeypatch):
    def broken(*_):
        raise NonFiniteError("the loss is nan")

    monkeypatch.setattr(story, "train_step", broken)
    with pytest.raises(NonFiniteError, match="step 1: the loss is nan, and nothing was updated"):
        sft(recipe(), runtime, tmp_path / "run", quiet=True)
    kept = load_file(tmp_path / "run" / "crash" / "batch.safetensors")
    assert kept["0.inputs"].shape == kept["0.loss_mask"].shape


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"model": "no/where/at/all"}, CheckpointError, "no/where"),
        ({"model": "demo"}, ConfigError, "tokenizer="),
        ({"model": "demo", "tokenizer": ".", "lora": LoraConfig(rank=1)}, ConfigError, "random weights"),
        ({"seq_len": 257}, ConfigError, "--set seq_len=256"),
        ({"data": ("/nowhere.jsonl",)}, DataError, "/nowhere.jsonl"),
        ({"template": "/nowhere"}, ConfigError, "/nowhere"),
        ({"seq_len": 3}, DataError, "seq_len = 3"),
    ],
)
def test_a_wrong_recipe_is_refused_before_training(recipe, runtime, tmp_path, changes, error, words):
    with pytest.raises(error, match=words):
        sft(recipe(**changes), runtime, tmp_path / "run", quiet=True)
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_runs_are_not_mixed(recipe, runtime, tmp_path, talks):
    file = tmp_path / "mine.jsonl"
    shutil.copyfile(talks, file)
    config = recipe(epochs=1.0, data=(str(file),))
    sft(config, runtime, tmp_path / "run", quiet=True)
    with pytest.raises(ConfigError, match="already holds a run"):
        sft(recipe(), runtime, tmp_path / "run", quiet=True)
    with pytest.raises(ConfigError, match="WORLD_SIZE = 2"):
        sft(recipe(), replace(runtime, world_size=2), tmp_path / "other", quiet=True)
    file.write_text("".join(talks.read_text().splitlines(keepends=True)[:20]))
    with pytest.raises(DataError, match="changed since the run was saved"):
        sft(config, runtime, tmp_path / "run", quiet=True, resume=True)


@pytest.mark.parametrize(
    "wrong",
    [
        {"data": ()},
        {"learn": "nothing"},
        {"epochs": 0.0},
        {"batch_tokens": -1},
        {"heldout_fraction": 1.0},
        {"balance_alpha": math.nan},
        {"seed": -1},
        {"watts": 0.0},
        {"precision": "float16"},
        {"lora": LoraConfig(rank=1), "schedule": SFTSchedule(bias_speed=0.1)},
    ],
)
def test_wrong_values_name_their_field(recipe, wrong):
    with pytest.raises(ConfigError, match=list(wrong)[-1]):
        recipe(**wrong)


def test_sizes_that_are_left_out_are_those_of_the_data_and_the_machine(recipe, runtime, tmp_path):
    report = sft(recipe(epochs=1.0, batch_tokens=0, micro_tokens=0), runtime, tmp_path / "run", quiet=True)
    used = configs.load(SFTConfig, tmp_path / "run" / "config.toml")
    assert used.micro_tokens == 16_384
    assert 28 <= report["steps"] <= 36


def test_few_steps_are_said_with_the_way_out(recipe, runtime, tmp_path, capfd):
    sft(recipe(epochs=1.0, batch_tokens=10_000), runtime, tmp_path / "run")
    assert re.search(
        r"1 steps of about [\d,]+ tokens, which is few: --set batch_tokens=\d+ makes 32",
        capfd.readouterr().err,
    )


@pytest.mark.parametrize(("rank", "lr"), [(0, 1e-4), (8, 1e-3)])
def test_the_rate_of_adapters_is_higher(rank, lr):
    config = SFTConfig(model="a", data=("b",), lora=LoraConfig(rank=rank))
    assert config.optim.lr == lr
    own = SFTConfig(model="a", data=("b",), lora=LoraConfig(rank=rank), optim=SFTOptim(lr=3e-5))
    assert own.optim.lr == 3e-5


def test_a_partial_recipe_keeps_fine_tuning_s_defaults():
    data = {"model": "a", "data": ["b"], "optim": {"beta2": 0.99}, "schedule": {"warmup_ratio": 0.01}}
    config = configs.build(SFTConfig, data)
    assert (config.optim.lr, config.schedule.cosine_until) == (1e-4, 1.0)


def test_gradient_checkpointing_changes_no_bit_of_an_adapter(recipe, runtime, tmp_path):
    lora = {"lora": LoraConfig(rank=2), "epochs": 1.0}
    for name, is_on in (("plain", False), ("checkpointed", True)):
        sft(recipe(gradient_checkpointing=is_on, **lora), runtime, tmp_path / name, quiet=True)
    files = [tmp_path / name / "adapter" / "adapter_model.safetensors" for name in ("plain", "checkpointed")]
    one, other = map(load_file, files)
    assert one.keys() == other.keys()
    assert not [name for name in one if not torch.equal(one[name], other[name])]


@pytest.mark.parametrize("rank", [0, 2])
def test_products_in_bfloat16_learn_nearly_the_same(recipe, runtime, tmp_path, rank):
    for precision in ("auto", "bf16"):
        config = recipe(precision=precision, epochs=1.0, lora=LoraConfig(rank=rank))
        sft(config, runtime, tmp_path / precision, quiet=True)
    plain, rounded = ([row["loss"] for row in rows(tmp_path / name)] for name in ("auto", "bf16"))
    assert plain != rounded
    assert rounded == pytest.approx(plain, rel=0.01)


@pytest.mark.parametrize("rank", [0, 2])
def test_a_finished_run_goes_on_for_another_epoch(sft_recipe, runtime, tmp_path, rank):
    out = tmp_path / "run"
    config = sft_recipe(epochs=1.0, lora=LoraConfig(rank=rank), heldout_fraction=0.0)
    first = sft(config, runtime, out, quiet=True)
    longer = resumed(SFTConfig, out / "config.toml", ["epochs=2", "save_every=3"])
    report = sft(longer, runtime, out, resume=True, quiet=True)
    rows = log(out)
    assert [row["step"] for row in rows] == list(range(1, report["steps"] + 1))
    assert report["tokens"] == pytest.approx(2 * first["tokens"], rel=0.1)
    assert sum(row["batch"] for row in rows) == pytest.approx(2 * 48, abs=4)
    before, after = rows[first["steps"] - 1], rows[first["steps"]]
    assert before["progress"] == 1.0
    assert 0.5 < after["progress"] < 0.75
    assert after["lr"] > 2 * before["lr"]  # past half-way down the cosine of the new length
