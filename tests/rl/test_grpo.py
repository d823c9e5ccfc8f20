"""The loop: it learns what is rewarded, resumes bit for bit, and survives verifiers and numbers that fail."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from shoestring import config as configs
from shoestring.errors import CheckpointError, ConfigError, CrashError, DataError, NonFiniteError, Stopped
from shoestring.model.hf.checkpoint import Checkpoint
from shoestring.model.hf.folder import load_model, save_model
from shoestring.model.lora import LoraConfig
from shoestring.model.reward import with_reward_head
from shoestring.rl import grpo as training
from shoestring.rl import progress
from shoestring.rl import run as runs
from shoestring.rl import step as steps
from shoestring.rl import update as updates
from shoestring.rl.losses import PolicyLossConfig
from shoestring.rl.recipe import GRPOConfig, PolicyOptim, RewardConfig, TaskShare
from shoestring.tasks import load
from shoestring.tokenizer.questions import PromptStyle
from shoestring.train import checkpoint
from shoestring.train.loop import Abandoned, Pulse


@pytest.fixture
def coin(coin_source, tmp_path, monkeypatch):
    """Makes the task `coin` with this reward: an expression of `text` and `example`."""

    def make(reward="float('1' in text or '4' in text)", pure=True, question="f'{n % 7}+{n % 5}=?'"):
        (tmp_path / "coin_task.py").write_text(coin_source(reward, pure, question))
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.setitem(load.TASKS, "coin", "coin_task:Coin")

    yield make
    import sys

    sys.modules.pop("coin_task", None)


@pytest.fixture
def recipe(student_folder):
    def make(**changes) -> GRPOConfig:
        settings = {
            "model": str(student_folder),
            "tasks": (TaskShare(name="coin"),),
            "steps": 4,
            "num_prompts": 3,
            "num_generations": 4,
            "max_tokens": 8,
            "save_every": 2,
            "eval_every": 2,
            "micro_tokens": 64,
            "optim": PolicyOptim(lr=3e-3),
        }
        return GRPOConfig(**settings | changes)

    return make


@pytest.fixture(autouse=True)
def _no_peak(monkeypatch):
    monkeypatch.setattr(training, "measure_peak", lambda _: 1e9)


def weights(out: Path) -> dict[str, torch.Tensor]:
    return load_file(out / "model" / "model.safetensors")


def rows(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def curve(out: Path) -> list[dict]:
    timed = ("seconds", "sample_s", "update_s", "samples_per_s", "tokens_per_s", "fault_share")
    return [{k: v for k, v in row.items() if k not in timed} for row in rows(out)]


def test_what_is_rewarded_becomes_more_frequent(coin, recipe, runtime, tmp_path) -> None:
    coin()
    report = training.grpo(
        recipe(steps=40, num_prompts=6, num_generations=8), runtime, tmp_path / "run", quiet=True
    )
    logged = rows(tmp_path / "run")
    early = sum(row["accuracy"] for row in logged[:5]) / 5
    late = sum(row["accuracy"] for row in logged[-5:]) / 5
    assert early < 0.6
    assert late > early + 0.25
    assert report["accuracy"] > report["accuracy_at_start"]
    assert max(row["gap"] for row in logged) < 1e-4
    assert {"model", "samples.jsonl", "receipt.json", "report.json"} <= {
        p.name for p in (tmp_path / "run").iterdir()
    }


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {
            "steps_per_generation": 2,
            "keep_routing": True,
            "loss": PolicyLossConfig(loss_type="gspo", epsilon_low=0.2),
        },
        {"loss": PolicyLossConfig(beta=0.01, off_policy_mask_threshold=0.1), "ref_model_sync_steps": 3},
        {"dynamic_sampling": 1, "reward": RewardConfig(format=0.5, language="en")},
        {"lora": LoraConfig(rank=4), "loss": PolicyLossConfig(beta=0.01)},
        {
            "lora": LoraConfig(rank=4, use_dora=True, targets=("attention", "mlp")),
            "loss": PolicyLossConfig(beta=0.01),
            "ref_model_sync_steps": 1,
        },
    ],
    ids=["plain", "off-policy", "reference", "refill", "lora", "dora, reference"],
)
def test_a_run_that_is_stopped_resumes_to_the_same_bits(
    coin, recipe, runtime, tmp_path, monkeypatch, changes
) -> None:
    coin()
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    training.grpo(recipe(**changes), runtime, whole, quiet=True)
    original = steps.update

    def dies(*args, **kwargs):
        if dies.left == 0:
            raise RuntimeError("killed")
        dies.left -= 1
        return original(*args, **kwargs)

    dies.left = 3  # step 4 dies; the newest checkpoint is of step 2
    monkeypatch.setattr(steps, "update", dies)
    with pytest.raises(CrashError, match="killed"):
        training.grpo(recipe(**changes), runtime, parts, quiet=True)
    monkeypatch.setattr(steps, "update", original)
    assert checkpoint.step_of(checkpoint.latest(parts / "checkpoints")) == 2
    training.grpo(recipe(**changes), runtime, parts, resume=True, quiet=True)
    assert curve(parts) == curve(whole)
    ours, theirs = weights(parts), weights(whole)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert (parts / "samples.jsonl").read_text() == (whole / "samples.jsonl").read_text()


def test_a_run_resumes_without_the_model_that_it_started_from(
    coin, recipe, runtime, tmp_path, student_folder
) -> None:
    coin()
    start = tmp_path / "start"
    shutil.copytree(student_folder, start)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    config = recipe(model=str(start), loss=PolicyLossConfig(beta=0.01), min_lr_ratio=1.0)
    training.grpo(config, runtime, whole, quiet=True)
    training.grpo(replace(config, steps=2), runtime, parts, quiet=True)
    shutil.rmtree(start)
    training.grpo(config, runtime, parts, resume=True, quiet=True)
    assert all(torch.equal(weights(parts)[name], tensor) for name, tensor in weights(whole).items())
    assert (parts / "model" / "tokenizer.json").is_file()


def test_a_run_with_old_names_in_its_recipe_resumes(coin, recipe, runtime, tmp_path, caplog) -> None:
    coin()
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    config = recipe(min_lr_ratio=1.0)  # the learning rate does not depend on the number of steps
    training.grpo(config, runtime, whole, quiet=True)
    training.grpo(replace(config, steps=2), runtime, parts, quiet=True)
    text = (parts / "config.toml").read_text()
    for new, old in (("num_generations", "group"), ("max_grad_norm", "clip"), ("steps = 2", "steps = 4")):
        text = text.replace(new, old)
    (parts / "config.toml").write_text(text)
    older = configs.load(GRPOConfig, parts / "config.toml")
    assert older == config
    assert f"{parts / 'config.toml'}: group is now called num_generations" in caplog.messages
    training.grpo(older, runtime, parts, resume=True, quiet=True)
    ours, theirs = weights(parts), weights(whole)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert "group" not in (parts / "config.toml").read_text()


@pytest.mark.parametrize("overlong", ["filter", "truncate"])
def test_long_problems_end_no_run_and_it_resumes_to_the_same_bits(
    coin, recipe, runtime, tmp_path, caplog, overlong
) -> None:
    coin(question="f'{n % 7}+{n % 5}=?' if n % 3 else '1+' * 2000")
    config = recipe(overlong=overlong)
    report = training.grpo(config, runtime, tmp_path / "whole", quiet=True)
    left_out = sum(row["overlong"] for row in rows(tmp_path / "whole"))
    drawn = 17 if overlong == "filter" else 12
    assert (left_out, report["overlong"]) == (drawn // 3, pytest.approx(drawn // 3 / drawn))
    assert "do not fit into the context" in caplog.text
    training.grpo(replace(config, steps=2, min_lr_ratio=1.0), runtime, tmp_path / "parts", quiet=True)
    training.grpo(replace(config, min_lr_ratio=1.0), runtime, tmp_path / "parts", resume=True, quiet=True)
    training.grpo(replace(config, min_lr_ratio=1.0), runtime, tmp_path / "other", quiet=True)
    assert curve(tmp_path / "parts") == curve(tmp_path / "other")
    assert all(torch.equal(a, weights(tmp_path / "other")[n]) for n, a in weights(tmp_path / "parts").items())


def test_a_long_problem_is_an_error_where_that_is_said(coin, recipe, runtime, tmp_path) -> None:
    coin(question="'1+' * 2000")
    with pytest.raises(ConfigError, match=r"the prompt of coin/1 has .* --set overlong=filter"):
        training.grpo(recipe(overlong="error"), runtime, tmp_path / "run", quiet=True)


def test_micro_batches_and_skipped_rows_change_nothing_but_memory(coin, recipe, runtime, tmp_path) -> None:
    coin()
    for name, size in (("small", 16), ("large", 10_000)):
        training.grpo(recipe(micro_tokens=size), runtime, tmp_path / name, quiet=True)
    ours, theirs = weights(tmp_path / "small"), weights(tmp_path / "large")
    for name in theirs:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-3, atol=2e-5)


def test_equal_rewards_leave_the_weights_alone(coin, recipe, runtime, tmp_path, student_folder) -> None:
    coin("1.0")
    training.grpo(recipe(), runtime, tmp_path / "run", quiet=True)
    start = load_file(student_folder / "model.safetensors")
    assert all(torch.equal(start[name], tensor) for name, tensor in weights(tmp_path / "run").items())
    assert all(row["groups_with_signal"] == 0 and row["skipped"] == 0 for row in rows(tmp_path / "run"))


def test_truncated_answers_can_be_left_out(coin, recipe, runtime, tmp_path, student_folder) -> None:
    coin()
    masked = recipe(max_tokens=1, loss=PolicyLossConfig(mask_truncated_completions=True))
    training.grpo(masked, runtime, tmp_path / "run", quiet=True)
    assert rows(tmp_path / "run")[0]["truncated"] > 0.9
    start = load_file(student_folder / "model.safetensors")
    assert all(torch.equal(start[name], tensor) for name, tensor in weights(tmp_path / "run").items())


def test_a_verifier_that_fails_is_not_a_zero_and_stops_the_run(coin, recipe, runtime, tmp_path) -> None:
    coin("float('1' in text) if example.answer % 2 else 1 / 0")
    with pytest.raises(DataError, match=r"\(coin: \d+ x exception 'coin_task.py, line \d+: Zero"):
        training.grpo(recipe(steps=50), runtime, tmp_path / "run", quiet=True)
    first = rows(tmp_path / "run")[0]
    assert 0.2 < first["faults"] < 0.8
    assert checkpoint.latest(tmp_path / "run" / "checkpoints") is not None


def test_numbers_that_are_not_finite_change_nothing(
    coin, recipe, runtime, tmp_path, monkeypatch, student_folder
) -> None:
    coin()
    original = updates.answer_logprobs

    def broken(*args):
        return original(*args) * torch.nan

    monkeypatch.setattr(updates, "answer_logprobs", broken)
    with pytest.raises(NonFiniteError, match="3 steps in a row"):
        training.grpo(
            recipe(steps=12, num_prompts=6, num_generations=8), runtime, tmp_path / "run", quiet=True
        )
    saved = checkpoint.latest(tmp_path / "run" / "checkpoints")
    start = load_file(student_folder / "model.safetensors")
    assert all(
        torch.equal(start[name], tensor) for name, tensor in load_file(saved / "model.safetensors").items()
    )


@pytest.mark.parametrize("step", [0, 2])
def test_ctrl_c_leaves_the_sampling_and_resume_samples_again(
    coin, recipe, runtime, tmp_path, monkeypatch, step
) -> None:
    coin()
    training.grpo(recipe(), runtime, tmp_path / "unbroken", quiet=True)
    looks = []

    def check(pulse: Pulse) -> None:
        looks.append(pulse)
        if len(looks) == 5 + 9 * step:
            raise Abandoned

    with monkeypatch.context() as patch:
        patch.setattr(Pulse, "check", check)
        with pytest.raises(Stopped, match=f"stopped at step {step} and saved; --resume"):
            training.grpo(recipe(), runtime, tmp_path / "run", quiet=True)
    assert checkpoint.step_of(checkpoint.latest(tmp_path / "run" / "checkpoints")) == step
    training.grpo(recipe(), runtime, tmp_path / "run", quiet=True, resume=True)
    assert curve(tmp_path / "run") == curve(tmp_path / "unbroken")
    one, other = weights(tmp_path / "run"), weights(tmp_path / "unbroken")
    assert all(torch.equal(other[name], tensor) for name, tensor in one.items())


def test_sampling_shows_how_far_it_is(coin, recipe, runtime, tmp_path, monkeypatch) -> None:
    coin()
    monkeypatch.setattr(progress, "INTERVAL_S", 0.0)
    said = []
    monkeypatch.setattr(Pulse, "say", lambda self, text: said.append(text))
    training.grpo(recipe(steps=2), runtime, tmp_path / "run", quiet=True)
    assert re.fullmatch(r"sampling 0 of 12 answers, at most 0:0\d:\d\d left", said[0])
    second = said[said.index("learning from 12 answers") + 1 :]
    assert re.fullmatch(r"sampling 0 of 12 answers, 0:0\d:\d\d left", second[0])
    assert second[-1] == "learning from 12 answers"


def test_sizes_that_are_left_out_are_those_of_the_machine(coin, recipe, runtime, tmp_path) -> None:
    coin()
    training.grpo(recipe(steps=1, micro_tokens=0), runtime, tmp_path / "run", quiet=True)
    assert configs.load(GRPOConfig, tmp_path / "run" / "config.toml").micro_tokens == 16_384


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"tasks": ()}, "tasks is empty"),
        ({"num_generations": 1}, "num_generations = 1"),
        ({"steps": 0}, "steps = 0"),
        ({"tasks": (TaskShare(name="coin"), TaskShare(name="coin"))}, "names one twice"),
        ({"tasks": (TaskShare(name="coin", share=0.0),)}, "share"),
        ({"temperature": 0.0}, "temperature = 0.0"),
    ],
)
def test_wrong_settings_are_named(recipe, changes, words) -> None:
    with pytest.raises(ConfigError, match=words):
        recipe(**changes)


def test_several_processes_need_torchrun(recipe, runtime, tmp_path) -> None:
    with pytest.raises(ConfigError, match="WORLD_SIZE = 2"):
        training.grpo(recipe(), replace(runtime, world_size=2), tmp_path / "run", quiet=True)


def test_gradient_checkpointing_changes_no_bit_of_the_policy(coin, recipe, runtime, tmp_path) -> None:
    coin()
    for name, is_on in (("plain", False), ("checkpointed", True)):
        settings = recipe(
            gradient_checkpointing=is_on, steps_per_generation=2, loss=PolicyLossConfig(beta=0.1)
        )
        training.grpo(settings, runtime, tmp_path / name, quiet=True)
    one, other = weights(tmp_path / "plain"), weights(tmp_path / "checkpointed")
    assert not [name for name in one if not torch.equal(one[name], other[name])]
    assert curve(tmp_path / "plain") == curve(tmp_path / "checkpointed")


class Preferring:
    """A reward model that prefers answers with a 1 or a 4, and reads nothing but the answer."""

    def __init__(self, *_):
        pass

    def score(self, talks):
        return [6.0 * any(digit in talk[-1]["content"] for digit in "14") - 3.0 for talk in talks]


def test_what_a_reward_model_prefers_becomes_more_frequent(
    coin, recipe, runtime, tmp_path, monkeypatch, student_folder
) -> None:
    """The program rewards nothing here; in the first steps it alone speaks, and nothing is learned."""
    coin("0.0")
    monkeypatch.setattr(runs, "RewardScorer", Preferring)
    reward = RewardConfig(model=str(student_folder), model_tasks=("coin",), model_steps=40)
    settings = {"steps": 43, "num_prompts": 6, "num_generations": 8, "prompt": PromptStyle(thinking=False)}
    training.grpo(recipe(reward=reward, **settings), runtime, tmp_path / "run", quiet=True)
    log = rows(tmp_path / "run")
    assert [row["preference"] for row in log[:3]] == [0.0] * 3
    assert [row["grad_norm"] for row in log[:3]] == [0.0] * 3
    assert [(row["accuracy"], row["solved_by_any"]) for row in log[2:4]] == [(0.0, 0.0), (None, None)]
    first, last = (sum(row["preference"] for row in part) / len(part) for part in (log[3:13], log[-10:]))
    assert last > first + 0.2
    card = (tmp_path / "run" / "model" / "README.md").read_text()
    assert "a program and a reward model compute" in card


def test_a_language_model_is_no_reward_model(coin, recipe, runtime, tmp_path, student_folder) -> None:
    coin()
    reward = RewardConfig(model=str(student_folder))
    with pytest.raises(CheckpointError, match="is no reward model: it has no score"):
        training.grpo(recipe(reward=reward), runtime, tmp_path / "run", quiet=True)


def test_a_run_with_a_reward_model_goes_on_to_the_same_bits(
    coin, recipe, runtime, tmp_path, student_folder
) -> None:
    coin()
    model = with_reward_head(load_model(Checkpoint.open(student_folder)), torch.Generator().manual_seed(1))
    save_model(model, tmp_path / "rewards", tokenizer_files=student_folder)
    reward = RewardConfig(model=str(tmp_path / "rewards"), model_weight=0.5)
    config = recipe(
        reward=reward, min_lr_ratio=1.0
    )  # the learning rate does not depend on the number of steps
    training.grpo(config, runtime, tmp_path / "whole", quiet=True)
    training.grpo(replace(config, steps=2), runtime, tmp_path / "parts", quiet=True)
    training.grpo(config, runtime, tmp_path / "parts", resume=True, quiet=True)
    assert curve(tmp_path / "whole") == curve(tmp_path / "parts")
    assert 0.0 < rows(tmp_path / "parts")[-1]["preference"] < 0.5
