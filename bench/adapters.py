"""Speed and memory of training adapters: LoRA and QLoRA beside full fine-tuning, and PEFT with transformers.

    python bench/adapters.py [--json FILE] [--rows 4] [--length 256] [--steps 4] [--peft-python PYTHON]

SmolLM2-135M's shape with random weights and adapters of rank 16 on every linear layer. Each way trains in a
process of its own, and its best step counts. Memory is the process's peak over what it had before the model
was read, weights included; float32 but for `lora, bfloat16`. `--peft-python` is an interpreter that has peft.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

from processes import peak_bytes, run_json

WAYS = ("full", "lora", "lora, bfloat16", "qlora int8", "qlora int4")
PEFT = "peft"


def write_models(folder):
    """The model in float32, and packed."""
    import torch

    from shoestring.model.hf.checkpoint import Checkpoint
    from shoestring.model.hf.folder import save_model
    from shoestring.model.packed.quantize import quantize_checkpoint
    from shoestring.model.presets import PRESETS
    from shoestring.model.transformer import Transformer, initialize

    model = initialize(Transformer(PRESETS["smollm2-135m"]), torch.Generator().manual_seed(0))
    save_model(model, folder / "plain")
    for form in ("int8", "int4"):
        quantize_checkpoint(Checkpoint.open(folder / "plain"), folder / form, form)


def ours(way, folder):
    """A training step as a function of ids (B, T + 1)."""
    from dataclasses import replace

    import torch

    from shoestring.device import choose
    from shoestring.model.lora import LoraConfig
    from shoestring.train.losses import MicroBatch
    from shoestring.train.optim import OptimConfig, build_optimizers
    from shoestring.train.runs.trainable import load_trainable, open_trainable
    from shoestring.train.step import StepSettings, train_step

    runtime, lora = choose("cpu"), LoraConfig(rank=0 if way == "full" else 16)
    if way == "lora, bfloat16":
        runtime = replace(runtime, compute_dtype=torch.bfloat16)
    name = folder / (way.split()[1] if way.startswith("qlora") else "plain")
    model = load_trainable(open_trainable(str(name), lora), lora, runtime, seed=0)
    optimizers = build_optimizers(model, OptimConfig())
    none = dict.fromkeys(("mtp_weight", "bias_speed", "balance_alpha"), 0.0)
    settings = StepSettings(lr_share=1.0, max_grad_norm=1.0, **none)

    def step(ids):
        train_step(model, optimizers, [MicroBatch(ids[:, :-1], ids[:, 1:])], settings)

    return step


def theirs(folder):
    """The same step by PEFT on transformers."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(folder / "plain", dtype=torch.float32)
    model = get_peft_model(base, LoraConfig(r=16, lora_alpha=32, target_modules="all-linear")).train()
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-3, fused=True)

    def step(ids):
        model(ids[:, :-1], labels=ids[:, :-1]).loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


def child(way, folder, rows, length, steps):
    """Train, and print the seconds of the best step and the bytes of the peak."""
    import torch

    import shoestring.train.sft

    assert shoestring.train.sft
    if way == PEFT:
        import peft
        import transformers

        assert peft
        assert transformers
    before = peak_bytes()
    step = theirs(folder) if way == PEFT else ours(way, folder)
    ids = torch.randint(0, 49_000, (rows, length + 1), generator=torch.Generator().manual_seed(1))
    seconds = []
    for _ in range(steps):
        start = time.perf_counter()
        step(ids)
        seconds.append(time.perf_counter() - start)
    speed, peak = rows * length / min(seconds), peak_bytes() - before
    print(json.dumps({"tokens_per_s": speed, "peak_bytes": peak}))


def main():
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--rows", type=int, default=4)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--peft-python")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    sizes = (arguments.rows, arguments.length, arguments.steps)
    if arguments.child:
        child(arguments.child[0], Path(arguments.child[1]), *sizes)
        return
    figures, names = {}, ("rows", "length", "steps")
    flags = [f"--{name}={size}" for name, size in zip(names, sizes, strict=True)]
    with tempfile.TemporaryDirectory() as scratch:
        write_models(Path(scratch))
        for way in (*WAYS, *([PEFT] if arguments.peft_python else [])):
            python = arguments.peft_python if way == PEFT else sys.executable
            figures[way] = row = run_json([python, __file__, *flags, "--child", way, scratch])
            speed, peak = row["tokens_per_s"], row["peak_bytes"] / 1e6
            print(f"{way:16} {speed:8,.0f} tokens/s {peak:8,.0f} MB", flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
