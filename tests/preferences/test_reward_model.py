"""Runs that train a reward model: what they leave, learn, resume, and that transformers scores alike."""

import json
import math
import os
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from shoestring import config as configs
from shoestring.errors import ConfigError, Stopped
from shoestring.model.hf.checkpoint import Checkpoint
from shoestring.model.hf.reward import RewardScorer
from shoestring.model.lora import LoraConfig
from shoestring.preferences import trainer as story
from shoestring.preferences.recipe import PreferenceOptim, RewardModelConfig
from shoestring.preferences.reward_model import bradley_terry, train_reward_model
from shoestring.train.report import metrics


@pytest.fixture
def reward_recipe(recipe):
    """Makes a recipe of 9 steps from the one of policies."""

    def make(**changes) -> RewardModelConfig:
        table = {k: v for k, v in configs.table(recipe()).items() if k != "loss"}
        return configs.build(RewardModelConfig, table | {"optim": {"lr": 3e-3}} | changes)

    return make


def weights(out: Path) -> dict[str, torch.Tensor]:
    return load_file(out / "model" / "model.safetensors")


def test_bradley_terry_is_the_chance_that_the_chosen_one_is_preferred():
    chosen = torch.tensor([2.0, 0.0, -1.0], dtype=torch.float64, requires_grad=True)
    rejected = torch.tensor([1.0, 0.0, 3.0], dtype=torch.float64)
    chance = chosen.exp() / (chosen.exp() + rejected.exp())
    loss = bradley_terry(chosen, rejected)
    torch.testing.assert_close(loss, -chance.log())
    assert float(loss[1].detach()) == pytest.approx(math.log(2))
    torch.testing.assert_close(torch.autograd.grad(loss.sum(), chosen)[0], chance.detach() - 1)
    centered = bradley_terry(chosen, rejected, center_rewards_coefficient=0.5)
    torch.testing.assert_close(centered - loss, 0.5 * torch.tensor([9.0, 0.0, 4.0], dtype=torch.float64))


@pytest.mark.parametrize("rank", [0, 4])
def test_it_learns_to_order_answers_it_has_not_seen(reward_recipe, runtime, base, tmp_path, rank):
    config = reward_recipe(epochs=4.0, heldout_fraction=0.2, lora={"rank": rank})
    report = train_reward_model(config, runtime, tmp_path / "run", quiet=True)
    assert report["loss_type"] == "bradley-terry"
    assert report["heldout_rewards/accuracies"] == 1.0
    assert report["heldout_loss"] < 0.5 * report["heldout_loss_at_start"]
    assert report["train_loss_at_start"] == pytest.approx(math.log(2), rel=0.3)
    scorer = RewardScorer(Checkpoint.open(tmp_path / "run" / "model"), runtime)
    question = {"role": "user", "content": "2 + 3 and 41"}
    talks = [[question, {"role": "assistant", "content": text}] for text in ("41 so", "no no 41")]
    good, bad = scorer.score(talks)
    assert good > bad
    if rank:
        assert (tmp_path / "run" / "adapter" / "head.safetensors").is_file()


def test_transformers_gives_the_same_rewards(reward_recipe, runtime, tmp_path):
    transformers = pytest.importorskip("transformers")
    train_reward_model(reward_recipe(), runtime, tmp_path / "run", quiet=True)
    folder = tmp_path / "run" / "model"
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    talk = [{"role": "user", "content": "2 + 3"}, {"role": "assistant", "content": "5 so"}]
    ids = tokenizer.apply_chat_template(talk, return_tensors="pt", return_dict=True)["input_ids"]
    with torch.no_grad():
        expected = float(theirs(ids).logits)
    assert RewardScorer(Checkpoint.open(folder), runtime).score([talk])[0] == pytest.approx(
        expected, abs=1e-5
    )


@pytest.mark.parametrize("rank", [0, 2])
def test_a_stopped_run_goes_on_to_the_same_end(reward_recipe, runtime, tmp_path, monkeypatch, rank):
    config = reward_recipe(lora={"rank": rank})
    train_reward_model(config, runtime, tmp_path / "whole", quiet=True)
    real, calls = story.clip_and_step, []

    def with_signal(*arguments, **settings):
        calls.append(1)
        if len(calls) == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return real(*arguments, **settings)

    monkeypatch.setattr(story, "clip_and_step", with_signal)
    with pytest.raises(Stopped, match="--resume"):
        train_reward_model(config, runtime, tmp_path / "run", quiet=True)
    train_reward_model(config, runtime, tmp_path / "run", quiet=True, resume=True)
    whole, run = weights(tmp_path / "whole"), weights(tmp_path / "run")
    assert [name for name in whole if not torch.equal(whole[name], run[name])] == []
    losses = [
        [row["loss"] for row in metrics.read(tmp_path / name / "metrics.jsonl")] for name in ("whole", "run")
    ]
    assert losses[0] == losses[1]


def test_a_reward_model_can_be_trained_on(reward_recipe, runtime, tmp_path):
    """A second run starts from the head of the first one."""
    train_reward_model(reward_recipe(epochs=4.0), runtime, tmp_path / "first", quiet=True)
    config = reward_recipe(model=str(tmp_path / "first" / "model"))
    report = train_reward_model(config, runtime, tmp_path / "second", quiet=True)
    assert report["train_loss_at_start"] < 0.5
    assert json.loads((tmp_path / "second" / "data.json").read_text())["start"]["name"] == "model"


def test_settings_are_those_of_preferences_without_their_loss(reward_recipe):
    assert reward_recipe(optim={}).optim.lr == 1e-5
    assert reward_recipe(optim={}, lora={"rank": 2}).optim == PreferenceOptim(lr=1e-4)
    assert reward_recipe(lora={"rank": 2}).lora == LoraConfig(rank=2)
    with pytest.raises(ConfigError, match="center_rewards_coefficient"):
        reward_recipe(center_rewards_coefficient=-1.0)
    with pytest.raises(ConfigError, match="loss"):
        reward_recipe(loss={"loss_type": "dpo"})
