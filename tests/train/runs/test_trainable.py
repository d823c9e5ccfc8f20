"""Models to train: whole, with adapters, with adapters on packed weights; what cannot be trained says so."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from shoestring.distill.collect import problems_of
from shoestring.distill.on_policy import on_policy
from shoestring.distill.on_policy_recipe import OnPolicyConfig, OnPolicyOptim
from shoestring.engine.load import load_engine
from shoestring.errors import CheckpointError, ConfigError, TokenizerError
from shoestring.evals.evaluate import TEXT, Subject, build_config, evaluate
from shoestring.model.gguf.exporter import export_gguf
from shoestring.model.hf.checkpoint import Checkpoint
from shoestring.model.hf.folder import load_model
from shoestring.model.hf.merge import save_merged
from shoestring.model.hf.named import open_model
from shoestring.model.lora import LoraConfig
from shoestring.model.packed.frozen import is_frozen
from shoestring.model.packed.quantize import load_frozen, quantize_checkpoint
from shoestring.rl import grpo as reinforcement
from shoestring.rl.grpo import grpo
from shoestring.rl.recipe import GRPOConfig, PolicyOptim, TaskShare
from shoestring.tasks.load import load_task
from shoestring.train.runs.trainable import load_trainable, open_trainable
from shoestring.train.sft import sft
from shoestring.train.sft_recipe import SFTConfig, SFTOptim

LORA = LoraConfig(rank=4, alpha=16.0)
IDS = torch.arange(5, 45)[None]


@pytest.fixture(autouse=True)
def _no_peak(monkeypatch):
    monkeypatch.setattr(reinforcement, "measure_peak", lambda _: 1e9)


@pytest.fixture(params=["int4", "int8"])
def packed(request, student_folder, tmp_path) -> Path:
    quantize_checkpoint(Checkpoint.open(student_folder), tmp_path / request.param, request.param)
    return tmp_path / request.param


@pytest.fixture
def fine_tuning(tmp_path, student_folder):
    """Makes a recipe of conversations that a tiny model learns in a few steps."""
    file = tmp_path / "talk.jsonl"
    turns = [
        [{"role": "user", "content": f"{n}+1=?"}, {"role": "assistant", "content": "20"}] for n in range(24)
    ]
    file.write_text("".join(json.dumps({"messages": turn}) + "\n" for turn in turns))

    def make(**changes) -> SFTConfig:
        settings = {
            "model": str(student_folder),
            "data": (str(file),),
            "seq_len": 48,
            "epochs": 4.0,
            "batch_tokens": 100,
            "save_every": 3,
            "lora": LORA,
            "optim": SFTOptim(lr=2e-2),
        }
        return SFTConfig(**settings | changes)

    return make


def logits(model) -> torch.Tensor:
    with torch.no_grad():
        return model(IDS)


def test_fine_tuning_on_packed_weights(packed, fine_tuning, runtime, tmp_path):
    config, out = fine_tuning(model=str(packed)), tmp_path / "run"
    report = sft(config, runtime, out, quiet=True)
    assert report["train_loss"] < 0.8 * report["train_loss_at_start"]
    newest = sorted((out / "checkpoints").iterdir())[-1]
    assert not (newest / "model.safetensors").exists()
    assert Checkpoint.open(out / "model").quantization is None  # the merged model is an ordinary one
    merged = load_model(Checkpoint.open(out / "model"))
    beside = load_frozen(open_model(f"{packed}+{out / 'adapter'}"))
    assert is_frozen(beside)
    torch.testing.assert_close(logits(merged), logits(beside), rtol=1e-3, atol=1e-3)
    assert (logits(merged) - logits(load_frozen(Checkpoint.open(packed)))).abs().max() > 0.1
    newest.rename(tmp_path / "newest")
    before = (out / "adapter" / "adapter_model.safetensors").read_bytes()
    sft(config, runtime, out, quiet=True, resume=True)
    assert (out / "adapter" / "adapter_model.safetensors").read_bytes() == before


def test_reinforcement_on_packed_weights(packed, runtime, tmp_path, monkeypatch):
    from shoestring.rl import step as steps

    def some_advantages(groups, kind):
        return [
            [replace(answer, advantage=(-1.0) ** place) for place, answer in enumerate(group)]
            for group in groups
        ]

    monkeypatch.setattr(steps, "with_advantages", some_advantages)
    config = GRPOConfig(
        model=str(packed),
        tasks=(TaskShare(name="arithmetic"),),
        steps=3,
        num_prompts=2,
        num_generations=4,
        max_tokens=8,
        save_every=2,
        micro_tokens=64,
        optim=PolicyOptim(lr=1e-2),
        lora=LORA,
    )
    grpo(config, runtime, tmp_path / "run", quiet=True)
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    # the engine's activations are integers beside packed weights: of 16 bits with int8, of 8 with int4
    assert 0 < max(row["gap"] for row in rows) < {"int8": 0.01, "int4": 0.5}[packed.name]
    assert (tmp_path / "run" / "adapter" / "adapter_config.json").is_file()
    assert Checkpoint.open(tmp_path / "run" / "model").quantization is None
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "step-00000003")
    before = load_file(tmp_path / "run" / "model" / "model.safetensors")
    grpo(config, runtime, tmp_path / "run", quiet=True, resume=True)
    after = load_file(tmp_path / "run" / "model" / "model.safetensors")
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_on_policy_distillation_into_packed_weights(packed, runtime, tmp_path, teacher_folder):
    config = OnPolicyConfig(
        steps=6, num_prompts=4, num_generations=2, max_tokens=8, optim=OnPolicyOptim(lr=1e-2), lora=LORA
    )
    report = on_policy(
        config,
        runtime,
        tmp_path / "run",
        student=Checkpoint.open(packed),
        teacher=Checkpoint.open(teacher_folder),
        problems=problems_of({"arithmetic": load_task("arithmetic", {})}, 5, 0),
    )
    assert report["kl"] < 0.95 * report["kl_at_start"]
    assert Checkpoint.open(tmp_path / "run" / "model").quantization is None


def test_packed_weights_alone_are_not_trained_and_the_sentence_says_what_is(packed, fine_tuning, runtime):
    for train in (
        lambda: sft(fine_tuning(model=str(packed), lora=LoraConfig()), runtime, packed / "a", quiet=True),
        lambda: grpo(
            GRPOConfig(model=str(packed), tasks=(TaskShare(name="arithmetic"),)), runtime, packed / "b"
        ),
        lambda: open_trainable(str(packed), LoraConfig()),
    ):
        with pytest.raises(ConfigError, match=r"train adapters on them \(--set lora\.rank=16\)"):
            train()


def test_a_model_with_an_adapter_is_trained_whole_or_merged_first(fine_tuning, runtime, tmp_path):
    sft(fine_tuning(), runtime, tmp_path / "first", quiet=True)
    both = f"{fine_tuning().model}+{tmp_path / 'first' / 'adapter'}"
    with pytest.raises(ConfigError, match=r"shoestring merge .*adapter FOLDER"):
        sft(fine_tuning(model=both), runtime, tmp_path / "second", quiet=True)
    model = load_trainable(open_trainable(both, LoraConfig()), LoraConfig(), runtime, seed=0)
    merged = load_model(Checkpoint.open(tmp_path / "first" / "model"))
    assert torch.equal(logits(model.eval()), logits(merged))
    sft(fine_tuning(model=both, lora=LoraConfig()), runtime, tmp_path / "third", quiet=True)


@pytest.mark.parametrize("lora", [LoraConfig(), LORA], ids=["whole", "lora"])
def test_only_lora_needs_its_start_again(lora, fine_tuning, runtime, tmp_path, student_folder):
    start, out = tmp_path / "start", tmp_path / "run"
    shutil.copytree(student_folder, start)
    config = fine_tuning(model=str(start), lora=lora, total_tokens=400)
    sft(config, runtime, out, quiet=True)
    shutil.rmtree(start)
    longer = replace(config, total_tokens=600)
    if lora.rank:
        with pytest.raises(CheckpointError, match="is an adapter, and its base is needed too: there is no"):
            sft(longer, runtime, out, quiet=True, resume=True)
    else:
        assert sft(longer, runtime, out, quiet=True, resume=True)["tokens"] > 400


def test_every_verb_refuses_a_tokenizer_that_is_larger_than_the_embedding(
    oversized, fine_tuning, student_folder, runtime, tmp_path
):
    folder = oversized(student_folder)
    checkpoint = Checkpoint.open(folder)
    text = tmp_path / "text.txt"
    text.write_text("1+2=3 " * 200)
    config = build_config(TEXT, {"sources": [str(text)]}, "--set")
    for verb in (
        lambda: sft(fine_tuning(model=str(folder)), runtime, tmp_path / "lora", quiet=True),
        lambda: sft(
            fine_tuning(model=str(folder), lora=LoraConfig()), runtime, tmp_path / "full", quiet=True
        ),
        lambda: load_engine(checkpoint, runtime),  # run, serve, eval, distill's teacher
        lambda: quantize_checkpoint(checkpoint, tmp_path / "c", "int8"),
        lambda: save_merged(load_model(checkpoint), checkpoint, tmp_path / "d"),
        lambda: export_gguf(checkpoint, tmp_path / "e.gguf", "f32"),
        lambda: evaluate(TEXT, config, Subject(name="x", checkpoint=checkpoint, runtime=runtime)),
    ):
        with pytest.raises(TokenizerError, match="the embedding has only 320 rows"):
            verb()
