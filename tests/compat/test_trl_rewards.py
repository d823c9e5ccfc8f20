"""TRL's reward functions train a model here as they are, with a weight for each, and resume bit for bit."""

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file

from shoestring.errors import Stopped
from shoestring.rl import grpo as training
from shoestring.rl.recipe import GRPOConfig, PolicyOptim, RewardConfig, TaskShare
from shoestring.tasks.load import load_task
from shoestring.tasks.task import Reply

FILE = Path(__file__).with_name("trl_rewards.py")
SYSTEM = {"role": "system", "content": "Think first."}


@pytest.fixture
def data(tmp_path) -> str:
    rows = [
        {
            "prompt": [SYSTEM, {"role": "user", "content": f"{n}+1=?"}],
            "ground_truth": str(n + 1),
            "task": "math" if n % 4 else "talk",
        }
        for n in range(40)
    ]
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_the_three_are_called_as_trl_calls_them(data):
    task = load_task(str(FILE), {"data": data, "weights": [0.1, 1.0, 2.0]})
    stream = task.examples("train", 0)
    examples = [next(stream) for _ in range(12)]
    texts = [f"<think>so</think>It is {example.answer['ground_truth']}." for example in examples]
    replies = [
        Reply(example=example, text=texts[number], token_ids=(2,) * number)
        for number, example in enumerate(examples)
    ]
    batch = task.judge_all(replies, {"global_step": 0})
    for number, (example, judgment) in enumerate(zip(examples, batch.judgments, strict=True)):
        is_math = example.answer["task"] == "math"
        solved = {"reward_solution": 1.0} if is_math else {}
        assert judgment.parts == {"reward_even": number, "reward_format": 1.0} | solved
        assert judgment.reward == pytest.approx(0.1 * number + 1.0 + 2.0 * is_math)
        assert judgment.notes == {"found": example.answer["ground_truth"]}
    assert batch.metrics == {"share_with_number": 1.0}


@pytest.mark.parametrize("place", ["as the task", "in the recipe"])
def test_a_run_with_them_learns_logs_and_resumes(data, student_folder, runtime, tmp_path, monkeypatch, place):
    monkeypatch.setattr(training, "measure_peak", lambda _: 1e9)
    names = tuple(f"{FILE}:reward_{name}" for name in ("even", "format", "solution"))
    if place == "as the task":
        task, reward = TaskShare(name=str(FILE), options={"data": data}), RewardConfig()
    else:
        task = TaskShare(name="prompts", options={"data": data})
        reward = RewardConfig(functions=names, weights=(0.1, 1.0, 2.0))
    config = GRPOConfig(
        model=str(student_folder), tasks=(task,), reward=reward, steps=4, num_prompts=2, num_generations=3,
        max_tokens=8, save_every=2, eval_every=2, min_lr_ratio=1.0, optim=PolicyOptim(lr=3e-3),
    )  # fmt: skip
    training.grpo(config, runtime, tmp_path / "whole", quiet=True)
    interrupt_after(2, monkeypatch)
    with pytest.raises(Stopped):
        training.grpo(config, runtime, tmp_path / "parts", quiet=True)
    monkeypatch.undo()
    monkeypatch.setattr(training, "measure_peak", lambda _: 1e9)
    training.grpo(config, runtime, tmp_path / "parts", resume=True, quiet=True)
    whole, parts = (load_file(tmp_path / run / "model" / "model.safetensors") for run in ("whole", "parts"))
    assert all((whole[name] == tensor).all() for name, tensor in parts.items())
    rows = [json.loads(line) for line in (tmp_path / "parts" / "metrics.jsonl").read_text().splitlines()]
    again = [json.loads(line) for line in (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()]
    assert [row["rewards"] for row in rows] == [row["rewards"] for row in again]
    assert rows[0]["rewards"].keys() >= {"reward_even", "reward_format"}
    assert rows[0]["faults"] == 0.0
    assert "share_with_number" in rows[0]["reward_metrics"]
    assert any(row["grad_norm"] > 0 for row in rows)
    sample = json.loads((tmp_path / "parts" / "samples.jsonl").read_text().splitlines()[0])
    assert {"reward_even", "reward_format"} <= sample["rewards"].keys()
    assert "found" in sample["notes"]


def interrupt_after(count, monkeypatch):
    """Ctrl-C comes after so many steps."""
    from shoestring.train.stop import StopRequest

    asked = []
    monkeypatch.setattr(
        StopRequest,
        "is_requested",
        property(lambda self: asked.append(1) or len(asked) >= count, lambda self, _: None),
        raising=False,
    )
