"""Part of rl_speed.py for TRL: runs its GRPOTrainer on a job and prints one line of JSON.

    PYTHONPATH=. python bench/rl_speed_trl.py JOB.json      with a Python interpreter that has trl

All that costs time and is not compared is off: checkpoints, gradient checkpointing, reports, KL, dropout,
mixed precision. In a step, `generate` is transformers' generate with its preparation, `reward` the reward
function, and `update` the rest: log-probabilities, backward and the optimizer.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path


def settings(job):
    from trl import GRPOConfig

    return GRPOConfig(
        output_dir=tempfile.mkdtemp(),
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        max_steps=job["steps"],
        per_device_train_batch_size=job["micro_rows"],
        gradient_accumulation_steps=job["prompts"] * job["group"] // job["micro_rows"],
        num_generations=job["group"],
        max_completion_length=job["max_tokens"],
        temperature=1.0,
        top_p=1.0,
        top_k=0,
        beta=0.0,
        loss_type="dr_grpo",
        scale_rewards="none",
        learning_rate=job["lr"],
        lr_scheduler_type="constant",
        optim="adamw_torch_fused",
        shuffle_dataset=False,
        save_strategy="no",
        report_to="none",
        logging_strategy="no",
        disable_tqdm=True,
    )


def make_reward(job, tokenizer, clock):
    """Reward function for TRL, which adds its seconds and the tokens of the answers to `clock`."""
    from rl_speed import digits

    from shoestring.tasks.countdown import Countdown
    from shoestring.tasks.task import Example

    task = Countdown()
    examples = [Example(**row["example"]) for row in job["rows"]]

    def reward(prompts, completions, completion_ids, row, **_):
        start = time.perf_counter()
        scores = []
        for ids, number in zip(completion_ids, row, strict=True):
            ids = ids[:-1] if ids[-1] == tokenizer.eos_token_id else ids
            text = job["rows"][number]["opening"] + tokenizer.decode(ids)
            scores.append(task.reward(examples[number], text) + job["digit_bonus"] * digits(text))
        clock["reward"] += time.perf_counter() - start
        clock["tokens"] += sum(map(len, completion_ids))
        return scores

    return reward


def adapter(job):
    """PEFT's settings of an adapter on all linear layers; None where all weights are trained."""
    if not job["lora"]:
        return None
    from peft import LoraConfig

    return LoraConfig(
        r=job["lora"], lora_alpha=32, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM"
    )


def build(job, clock):
    """Trainer whose phases add their seconds to `clock`, with a callback at the end of each step."""
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import GRPOTrainer

    class TimingTrainer(GRPOTrainer):
        def _generate(self, prompts):
            start = time.perf_counter()
            try:
                return super()._generate(prompts)
            finally:
                clock["generate"] += time.perf_counter() - start

    class StepEnds(TrainerCallback):
        def on_step_end(self, args, state, control, **_):
            clock["ends"].append((time.perf_counter(), clock["generate"], clock["reward"], clock["tokens"]))

    torch.set_num_threads(job["threads"])
    torch.manual_seed(job["seed"])
    tokenizer = AutoTokenizer.from_pretrained(job["model"])
    for row in job["rows"]:  # both programs must read the same ids
        assert tokenizer(text=row["prompt"])["input_ids"] == row["prompt_ids"], row
    model = AutoModelForCausalLM.from_pretrained(job["model"], dtype=torch.float32)
    if job["experts"]:
        model.set_experts_implementation(job["experts"])
    data = Dataset.from_list([{"prompt": r["prompt"], "row": n} for n, r in enumerate(job["rows"])])
    return TimingTrainer(
        model=model,
        processing_class=tokenizer,
        reward_funcs=make_reward(job, tokenizer, clock),
        args=settings(job),
        train_dataset=data,
        callbacks=[StepEnds()],
        peft_config=adapter(job),
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("job", type=Path, help="file that rl_speed.py writes")
    job = json.loads(parser.parse_args().job.read_text())
    clock = {"generate": 0.0, "reward": 0.0, "tokens": 0, "ends": []}
    trainer = build(job, clock)
    clock["ends"].append((time.perf_counter(), 0.0, 0.0, 0))
    trainer.train()
    steps = []
    for before, after in zip(clock["ends"], clock["ends"][1:], strict=False):
        seconds, generate, reward, tokens = (b - a for a, b in zip(before, after, strict=True))
        names = ("seconds", "generate", "reward", "update", "tokens")
        values = (seconds, generate, reward, seconds - generate - reward, tokens)
        steps.append(dict(zip(names, values, strict=True)))
    print(json.dumps({"steps": steps}))


if __name__ == "__main__":
    main()
