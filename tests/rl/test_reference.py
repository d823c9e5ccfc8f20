"""Reinforcement of adapters: the engine samples with them, the reference is the base."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from shoestring.errors import CheckpointError
from shoestring.model.hf.checkpoint import Checkpoint
from shoestring.model.hf.folder import load_model
from shoestring.model.hf.named import open_model
from shoestring.model.lora import LoraConfig, add_adapters
from shoestring.rl import grpo as training
from shoestring.rl.losses import PolicyLossConfig
from shoestring.rl.recipe import GRPOConfig, PolicyOptim, TaskShare
from shoestring.rl.reference import Reference
from shoestring.train import checkpoint

LORA = LoraConfig(rank=8, alpha=16.0)


@pytest.fixture
def recipe(student_folder):
    return GRPOConfig(
        model=str(student_folder),
        tasks=(TaskShare(name="arithmetic"),),
        steps=4,
        num_prompts=3,
        num_generations=4,
        max_tokens=8,
        save_every=2,
        eval_every=2,
        micro_tokens=64,
        optim=PolicyOptim(lr=3e-2),
        loss=PolicyLossConfig(beta=0.1),
        lora=LORA,
    )


@pytest.fixture(autouse=True)
def _no_peak(monkeypatch):
    monkeypatch.setattr(training, "measure_peak", lambda _: 1e9)


@pytest.fixture
def learns(monkeypatch):
    """Every answer gets a reward by its length, so that each step has something to learn."""
    from shoestring.rl import step as steps

    def random_advantages(groups, kind):
        return [
            [replace(answer, advantage=(-1.0) ** place) for place, answer in enumerate(group)]
            for group in groups
        ]

    monkeypatch.setattr(steps, "with_advantages", random_advantages)


def rows(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def test_the_engine_samples_with_the_adapter_as_exactly_as_without_one(recipe, learns, runtime, tmp_path):
    training.grpo(recipe, runtime, tmp_path / "lora", quiet=True)
    training.grpo(replace(recipe, lora=LoraConfig()), runtime, tmp_path / "full", quiet=True)
    gaps = {name: max(row["gap"] for row in rows(tmp_path / name)) for name in ("lora", "full")}
    assert gaps["lora"] < 1e-4
    assert gaps["full"] < 1e-4
    lora = rows(tmp_path / "lora")
    assert lora[0]["kl"] == pytest.approx(0.0, abs=1e-6)  # the policy still is its base
    assert lora[-1]["kl"] > 1e-3


def test_checkpoints_hold_the_adapter_alone_and_the_result_is_both(recipe, learns, runtime, tmp_path):
    out = tmp_path / "run"
    training.grpo(recipe, runtime, out, quiet=True)
    newest = checkpoint.latest(out / "checkpoints")
    names = {path.name for path in newest.iterdir()}
    assert "model.safetensors" not in names
    assert {"adapter_model.safetensors", "trainer.safetensors", "tokenizer.json"} <= names
    base, merged = (load_file(folder / "model.safetensors") for folder in (Path(recipe.model), out / "model"))
    assert any(not torch.equal(base[name], merged[name]) for name in base)
    again = load_model(open_model(f"{recipe.model}+{out / 'adapter'}"))
    ids = torch.tensor([[1, 2, 3, 4]])
    with torch.no_grad():
        wanted = load_model(Checkpoint.open(out / "model"))(ids)
        torch.testing.assert_close(again(ids), wanted, rtol=0, atol=0)
    saved = load_file(newest / "trainer.safetensors")
    assert not any(name.startswith("/reference") for name in saved)


def test_a_resume_needs_the_base_and_says_so(recipe, learns, runtime, tmp_path):
    base, out = tmp_path / "base", tmp_path / "run"
    shutil.copytree(recipe.model, base)
    recipe = replace(recipe, model=str(base))
    training.grpo(replace(recipe, steps=2), runtime, out, quiet=True)
    base.rename(tmp_path / "elsewhere")
    with pytest.raises(CheckpointError, match="is an adapter, and its base is needed too: there is no"):
        training.grpo(recipe, runtime, out, resume=True, quiet=True)
    (tmp_path / "elsewhere").rename(base)
    training.grpo(recipe, runtime, out, resume=True, quiet=True)
    assert (out / "adapter" / "adapter_config.json").is_file()


def test_the_reference_is_the_base_until_it_is_renewed(student_folder):
    model, ids = load_model(Checkpoint.open(student_folder)), torch.tensor([[1, 2, 3, 4]])
    with torch.no_grad():
        base = model(ids)
    add_adapters(model, LORA, torch.Generator().manual_seed(0))
    reference = Reference(model, is_adapted=True)
    assert reference.state_dict() == {}

    def change():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data.normal_(0.0, 0.3)

    def of_reference():
        with torch.no_grad(), reference.model() as other:
            return other(ids)

    change()
    assert torch.equal(of_reference(), base)
    with torch.no_grad():
        policy = model(ids)
    assert not torch.allclose(policy, base)
    reference.renew()
    change()
    later = [parameter.clone() for parameter in model.parameters()]
    assert torch.equal(of_reference(), policy)
    assert all(torch.equal(now, then) for now, then in zip(model.parameters(), later, strict=True))
    other = Reference(model, is_adapted=True)
    other.load_state_dict(reference.state_dict())
    with torch.no_grad(), other.model() as same:
        assert torch.equal(same(ids), policy)
