"""Speed, memory and loss of LoRA fine-tuning compared with TRL's SFTTrainer and PEFT.

    python bench/sft_speed.py --trl-python PATH [--model FOLDER] [--steps 12] [--json FILE]

Both learn the same conversations in the same order from the same adapter (rank 16 on all linear layers) in
float32 on a CPU with 2 threads, one after the other in processes of their own: the losses must agree step by
step. Conversations have equally many tokens, so that TRL pads none. The model is SmolLM2-135M-Instruct
(`shoestring pull smollm2`), or a FOLDER in Hugging Face layout. The speed is that of the fastest step after
the first, the memory the largest that the process had.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

SPEED_TARGET, MEMORY_TARGET, LOSS_TARGET = 1.5, 0.8, 0.02
JOB = {"rows": 8, "sums": 6, "rank": 16, "alpha": 32.0, "lr": 5e-4, "beta2": 0.999, "threads": 2, "seed": 0}


def peak_bytes():
    """The most memory that this process had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def make_model(folder):
    """Write SmolLM2 in Hugging Face layout, in float32."""
    import torch

    from shoestring.model.hf.checkpoint import Checkpoint
    from shoestring.model.hf.folder import load_model, save_model
    from shoestring.model.hf.hub import resolve

    checkpoint = Checkpoint.open(resolve("smollm2"))
    save_model(load_model(checkpoint), folder, tokenizer_files=checkpoint.folder, dtype=torch.float32)


def write_talks(path, model, job, count):
    """Write `count` conversations of the most frequent length: several sums with their working each."""
    from collections import Counter

    from shoestring.data.scratchwork import Scratchwork, write
    from shoestring.model.hf.checkpoint import Checkpoint

    mix = Scratchwork(countdown=0.0, arithmetic=1.0, methodical=1.0, slip=0.0)
    sums = [json.loads(line)["messages"] for line in write(mix, 0, 40 * count * job["sums"]).splitlines()]
    parts = (sums[n : n + job["sums"]] for n in range(0, len(sums), job["sums"]))
    talks = [[message for messages in part for message in messages] for part in parts]
    tokenizer = Checkpoint.open(model).tokenizer
    lengths = [sum(len(tokenizer.encode(message["content"])) for message in talk) for talk in talks]
    length = Counter(lengths).most_common(1)[0][0]
    chosen = [talk for talk, tokens in zip(talks, lengths, strict=True) if tokens == length][:count]
    if len(chosen) < count:
        raise SystemExit(f"only {len(chosen)} of {count} conversations have {length} tokens")
    path.write_text("".join(json.dumps({"messages": talk}) + "\n" for talk in chosen))


def recipe(job):
    """Recipe of this package for the job: a constant rate, nothing but steps."""
    from shoestring.model.lora import LoraConfig
    from shoestring.train.sft_recipe import SFTConfig, SFTOptim, SFTSchedule

    return SFTConfig(
        model=job["model"],
        data=(job["talks"],),
        epochs=1.0,
        batch_tokens=job["batch_tokens"],
        micro_tokens=job["batch_tokens"],
        eval_every=10**9,
        save_every=10**9,
        seed=job["seed"],
        optim=SFTOptim(lr=job["lr"], beta2=job["beta2"], max_grad_norm=1e9),
        schedule=SFTSchedule(warmup_ratio=0.0, constant_until=1.0, cosine_until=1.0),
        lora=LoraConfig(rank=job["rank"], alpha=job["alpha"]),
    )


def make_rows(job, folder):
    """The conversations in the run's order, and the adapter that it begins with, for the other program."""
    from shoestring.device import choose
    from shoestring.model.hf.peft import save_adapter
    from shoestring.train.sft import next_conversations
    from shoestring.train.sft_run import build

    run = build(recipe(job), choose("cpu", threads=job["threads"]), folder / "order", resume=False)
    save_adapter(run.model, folder / "adapter", base=job["model"])
    rows = []
    while not run.is_finished:
        numbers = next_conversations(run)
        run.tokens += int(run.data.lengths[numbers].sum())
        for number in numbers:
            end, length = int(run.data.ends[number]), int(run.data.lengths[number]) + 1
            part = slice(end - length, end)
            rows.append([run.data.ids[part].tolist(), run.data.loss_mask[part].astype(int).tolist()])
    return rows


def ours(job):
    """Train, and return the loss and the seconds of each step."""
    from shoestring.device import choose
    from shoestring.train import sft
    from shoestring.train.report.metrics import read

    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        sft.sft(recipe(job), choose("cpu", threads=job["threads"]), out, quiet=True)
        rows = read(out / "metrics.jsonl")
    tokens = job["batch_tokens"]
    return {
        "losses": [row["loss"] for row in rows],
        "seconds": [tokens / row["tokens_per_s"] for row in rows],
        "bytes": peak_bytes(),
    }


def run_child(command, job, folder):
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
    return json.loads(process.stdout.splitlines()[-1])


def show(name, result, job):
    speed = job["batch_tokens"] / min(result["seconds"][1:])
    losses = result["losses"]
    parts = f"{speed:7.0f} tokens/s  {result['bytes'] / 1e9:5.2f} GB"
    print(f"  {name:<12} {parts}  loss {losses[0]:.4f} -> {losses[-1]:.4f}", flush=True)
    return speed


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trl-python", default=sys.executable, help="Python interpreter with trl and peft")
    parser.add_argument("--model", type=Path)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(ours(json.loads(arguments.child.read_text()))))
        return 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = arguments.model or folder / "model"
        if not arguments.model:
            make_model(model)
        job = JOB | {"model": str(model.resolve()), "talks": str(folder / "talks.jsonl"), "batch_tokens": 1}
        write_talks(folder / "talks.jsonl", model, job, arguments.steps * job["rows"])
        rows = make_rows(job, folder)
        length, learned = len(rows[0][0]) - 1, sum(rows[0][1])
        job["batch_tokens"] = job["rows"] * length
        job |= {"data": rows, "adapter": str(folder / "adapter")}
        print(
            f"{arguments.steps} steps of {job['rows']} conversations, {length} tokens each, {learned} learned"
        )
        results = {"shoestring": run_child([sys.executable, __file__, "--child"], job, folder)}
        script = str(Path(__file__).with_name("sft_speed_trl.py"))
        speeds = {"shoestring": show("shoestring", results["shoestring"], job)}
        results["TRL"] = run_child([arguments.trl_python, script], job, folder)
        speeds["TRL"] = show("TRL + PEFT", results["TRL"], job)
    faster = speeds["shoestring"] / speeds["TRL"]
    memory = results["shoestring"]["bytes"] / results["TRL"]["bytes"]
    pairs = zip(results["shoestring"]["losses"], results["TRL"]["losses"], strict=True)
    gap = max(abs(one - other) for one, other in pairs)
    passed = faster >= SPEED_TARGET and memory <= MEMORY_TARGET and gap <= LOSS_TARGET
    print(
        f"{'PASS' if passed else 'FAIL'}: {faster:.2f}x TRL's speed (target {SPEED_TARGET}), {memory:.2f} of "
        f"its memory (target {MEMORY_TARGET}), losses within {gap:.1e} (target {LOSS_TARGET})"
    )
    if arguments.json:
        figures = {"speeds": speeds, "results": results, "faster": faster, "memory": memory, "gap": gap}
        arguments.json.write_text(json.dumps(figures, indent=2))
    return 0 if passed else 3


if __name__ == "__main__":
    sys.exit(main())
