"""Speed of GRPO compared with TRL's GRPOTrainer: same model, task, group size and lengths.

    python bench/rl_speed.py --trl-python PATH [--json FILE] [--model FOLDER] [--steps 3] [--only ours|trl]
    python bench/rl_speed.py --trl-python PATH --model FOLDER --lora 16 --prompts 4 --max-tokens 32

A step samples 24 Countdown problems x 16 answers of at most 128 tokens and makes one update, in float32 on a
CPU with 2 threads. Each program trains in a process of its own; a first step does not count, and the best of
the others does. TRL (rl_speed_trl.py) runs with several settings, of which the best counts. The model has the
demo's shape and random weights, or is the FOLDER of an earlier run. A small reward for digits gives every
group different rewards, so that neither program may skip answers. With --lora only an adapter of this rank is
trained, in TRL by PEFT; SmolLM2 as a FOLDER is what sft_speed.py's make_model writes.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

TARGET = 5.0
JOB = {
    "prompts": 24,
    "group": 16,
    "max_tokens": 128,
    "threads": 2,
    "seed": 0,
    "lr": 1e-4,
    "digit_bonus": 0.1,
    "micro_rows": 384,
    "experts": None,
    "lora": 0,
}
TRL_SETTINGS = {
    "default settings": {},
    "loop over experts": {"experts": "eager"},
    "... in micro-batches of 64": {"experts": "eager", "micro_rows": 64},
}

DENSE_SETTINGS = {"default settings": {}, "in micro-batches of 16": {"micro_rows": 16}}


def make_model(folder):
    """Write a model of the demo's shape with random weights, and a tokenizer of bytes."""
    from dataclasses import replace

    import torch

    from shoestring.model.hf.folder import save_model
    from shoestring.model.presets import PRESETS
    from shoestring.model.transformer import Transformer, initialize
    from shoestring.tokenizer.bpe import Tokenizer
    from shoestring.tokenizer.chat.deepseek import DeepSeekTemplate

    tokenizer = Tokenizer.train(["0123456789+-*()=,make from "], 300)
    tokenizer.save(folder)
    DeepSeekTemplate().save(folder)
    config = replace(
        PRESETS["r1-mini"],
        vocab_size=tokenizer.vocab_size,
        num_nextn_predict_layers=0,  # transformers has no MTP
        bos_token_id=tokenizer.bos_id,
        eos_token_id=tokenizer.eos_id,
    )
    model = initialize(Transformer(config), torch.Generator().manual_seed(0))
    save_model(model, folder, dtype=torch.float32)


def make_rows(folder, job, count):
    """Problems that `ours` will draw, with their prompts as text and as ids."""
    from dataclasses import asdict

    from shoestring.rl.problems import ProblemStream
    from shoestring.tokenizer.bpe import Tokenizer
    from shoestring.tokenizer.chat.load import load_template
    from shoestring.tokenizer.questions import prompt_ids

    tokenizer = Tokenizer.load(folder)
    config, template = recipe(folder, job), load_template(folder, tokenizer)
    rows = []
    for problem in ProblemStream(config).draw(count):
        prompt = prompt_ids(problem.example.question, tokenizer, template, config.prompt)
        rows.append(
            {
                "prompt": tokenizer.decode(prompt.ids),
                "prompt_ids": list(prompt.ids),
                "opening": prompt.opening,
                "example": asdict(problem.example),
            }
        )
    return rows


def recipe(model, job):
    """Recipe of this package for the job."""
    from shoestring.model.lora import LoraConfig
    from shoestring.rl.recipe import GRPOConfig, PolicyOptim, TaskShare

    return GRPOConfig(
        model=str(model),
        tasks=(TaskShare(name="countdown"),),
        steps=job["steps"],
        num_prompts=job["prompts"],
        num_generations=job["group"],
        max_tokens=job["max_tokens"],
        save_every=10**9,
        eval_every=10**9,
        seed=job["seed"],
        optim=PolicyOptim(lr=job["lr"]),
        lora=LoraConfig(rank=job["lora"]),
    )


def digits(text):
    """Share of digits in an answer: a reward for a random model, which never solves a problem."""
    return sum(c.isdigit() for c in text) / max(len(text), 1)


def ours(job):
    """Train, and return the figures of the steps from the run's metrics; `generate` includes rewards."""
    from shoestring.device import choose
    from shoestring.rl import grpo, rollout
    from shoestring.train.report.metrics import read

    reward_parts = rollout.reward_parts
    rollout.reward_parts = lambda accuracy, text, config: (
        reward_parts(accuracy, text, config) | {"digits": job["digit_bonus"] * digits(text)}
    )
    with tempfile.TemporaryDirectory() as folder:
        runtime = choose("cpu", threads=job["threads"])
        grpo.grpo(recipe(job["model"], job), runtime, Path(folder) / "run", quiet=True)
        rows = read(Path(folder) / "run" / "metrics.jsonl")
    return [
        {
            "seconds": row["sample_s"] + row["update_s"],
            "generate": row["sample_s"],
            "reward": 0.0,
            "update": row["update_s"],
            "tokens": row["answer_tokens"] * job["prompts"] * job["group"],
        }
        for row in rows
    ]


def run_child(command, job, folder):
    """Run one program in a process of its own; returns its steps without the first."""
    path = Path(folder) / "job.json"
    path.write_text(json.dumps(job))
    environment = os.environ | {
        "PYTHONPATH": str(Path(__file__).parents[1]),
        "OMP_NUM_THREADS": str(job["threads"]),
        "HF_HUB_OFFLINE": "1",
    }
    process = subprocess.run([*command, str(path)], env=environment, capture_output=True, text=True)
    if process.returncode:
        raise SystemExit(f"{command[1]} failed:\n{process.stderr[-3000:]}")
    return json.loads(process.stdout.splitlines()[-1])["steps"][1:]


def figures(name, steps, samples):
    best = min(steps, key=lambda step: step["seconds"])
    return {
        "name": name,
        "samples_per_s": samples / best["seconds"],
        "updates_per_s": 1 / best["seconds"],
        "mean_length": best["tokens"] / samples,
        **{phase: best[phase] for phase in ("generate", "reward", "update")},
    }


def show(row):
    parts = ", ".join(f"{phase} {row[phase]:.2f} s" for phase in ("generate", "reward", "update"))
    speed = f"{row['samples_per_s']:7.1f} samples/s {row['updates_per_s']:7.3f} updates/s"
    print(f"  {row['name']:<28} {speed}   ({parts}; {row['mean_length']:.0f} tokens per answer)", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trl-python", default=sys.executable, help="Python interpreter that has trl")
    parser.add_argument("--model", type=Path)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--max-tokens", type=int, default=JOB["max_tokens"])
    parser.add_argument("--prompts", type=int, default=JOB["prompts"])
    parser.add_argument("--lora", type=int, default=JOB["lora"], metavar="RANK")
    parser.add_argument("--only", choices=["ours", "trl"])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps({"steps": ours(json.loads(arguments.child.read_text()))}))
        return 0
    trl_script = str(Path(__file__).with_name("rl_speed_trl.py"))
    samples = arguments.prompts * JOB["group"]
    print(f"{arguments.prompts} prompts x {JOB['group']} answers of at most {arguments.max_tokens} tokens")
    with tempfile.TemporaryDirectory() as folder:
        model = arguments.model or Path(folder) / "model"
        if not arguments.model:
            model.mkdir()
            make_model(model)
        job = JOB | {"model": str(model.resolve()), "steps": arguments.steps + 1}
        job |= {"max_tokens": arguments.max_tokens, "prompts": arguments.prompts, "lora": arguments.lora}
        job["micro_rows"] = samples
        job["rows"] = make_rows(model, job, arguments.prompts * job["steps"])
        rows = []
        if arguments.only != "trl":
            steps = run_child([sys.executable, __file__, "--child"], job, folder)
            rows.append(figures("shoestring", steps, samples))
            show(rows[-1])
        settings = DENSE_SETTINGS if arguments.lora else TRL_SETTINGS
        for name, changes in settings.items() if arguments.only != "ours" else ():
            steps = run_child([arguments.trl_python, trl_script], job | changes, folder)
            rows.append(figures(f"TRL, {name}", steps, samples))
            show(rows[-1])
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")
    if arguments.only:
        return 0
    ratio = rows[0]["samples_per_s"] / max(row["samples_per_s"] for row in rows[1:])
    print(f"  ours / best of TRL: {ratio:.1f} (target {TARGET})")
    return 3 if ratio < TARGET else 0


if __name__ == "__main__":
    sys.exit(main())
