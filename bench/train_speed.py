"""Speed of training compared with transformers: a V3-shaped and a dense model, same batch and optimizer.

    python bench/train_speed.py [--json FILE] [--rounds 3] [--steps 5] [--only v3|dense]

Each program trains `rounds` times, each time in a process of its own, and the best step counts. All use
float32, fused AdamW and the default number of threads; ours once more with products in bfloat16, transformers
with its default and its other implementation of experts. The share of the peak is the model's FLOPs (as
`shoestring show` prints them) over those of the best float32 product measured in the same process.
"""

import argparse
import json
import sys
import time
from pathlib import Path

from processes import run_json

ROWS, LENGTH = 8, 512
BF16 = "shoestring, precision bf16"
"""Our own with matrix products in bfloat16: an option, shown beside the comparison and no part of it."""
ENGINES = {
    "v3": ("shoestring", BF16, "transformers", "transformers, loop over experts"),
    "dense": ("shoestring", BF16, "transformers"),
}
TARGETS = {"v3": 1.5, "dense": 1.1}


def shapes():
    """Configurations of the two models, of 11.7M and 6.9M parameters."""
    from dataclasses import replace

    from shoestring.model.config import GQAConfig, ModelConfig
    from shoestring.model.presets import PRESETS

    dense = ModelConfig(
        model_type="llama",
        vocab_size=4096,
        hidden_size=256,
        intermediate_size=704,
        num_hidden_layers=6,
        num_attention_heads=4,
        attention=GQAConfig(num_key_value_heads=4, head_dim=64),
    )
    return {"v3": replace(PRESETS["v3-12m"], num_nextn_predict_layers=0), "dense": dense}


def ours(config, in_bf16):
    """Training step of this package as a function of ids (B, T + 1)."""
    import torch

    from shoestring.device import choose
    from shoestring.model.transformer import Transformer, initialize
    from shoestring.train.losses import MicroBatch, next_token_losses

    choose("cpu")
    model = initialize(Transformer(config), torch.Generator().manual_seed(0)).train()
    if in_bf16:
        model.multiply_in_bf16()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

    def step(ids):
        batch = MicroBatch(ids[:, :-1], ids[:, 1:])
        loss = next_token_losses(model, batch, mtp_weight=0.0, balance_alpha=0.0).total
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return float(loss.detach())

    return step


def theirs(config, loop_over_experts):
    """Training step of transformers for the same configuration."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from shoestring.model.hf.config import to_hf

    data = to_hf(config)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**data), dtype=torch.float32).train()
    if loop_over_experts:
        model.set_experts_implementation("eager")
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

    def step(ids):
        loss = model(input_ids=ids[:, :-1], labels=ids[:, :-1], use_cache=False).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return float(loss.detach())

    return step


def child(shape, engine, steps):
    """Measure one program in this process; prints JSON."""
    import torch

    from shoestring.device import Runtime, measure_peak

    config = shapes()[shape]
    step = theirs(config, "loop" in engine) if "transformers" in engine else ours(config, engine == BF16)
    peak = measure_peak(Runtime(device=torch.device("cpu"), compute_dtype=torch.float32))
    generator = torch.Generator().manual_seed(1)
    best = float("inf")
    for _ in range(steps + 1):
        ids = torch.randint(0, config.vocab_size, (ROWS, LENGTH + 1), generator=generator)
        start = time.perf_counter()
        loss = step(ids)
        best = min(best, time.perf_counter() - start)
    print(json.dumps({"tokens_per_s": ROWS * LENGTH / best, "peak_flops_per_s": peak, "loss": loss}))


def measure(shape, engine, steps):
    return run_json([sys.executable, __file__, "--child", shape, engine, "--steps", str(steps)])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--only", choices=list(ENGINES))
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(*arguments.child, arguments.steps)
        return 0
    from shoestring.model.cost import train_flops_per_token

    rows, is_missed = [], False
    for shape in [arguments.only] if arguments.only else ENGINES:
        results = {engine: [] for engine in ENGINES[shape]}
        for _ in range(arguments.rounds):
            for engine in results:
                results[engine].append(measure(shape, engine, arguments.steps))
        flops = train_flops_per_token(shapes()[shape], LENGTH)
        peak = max(r["peak_flops_per_s"] for part in results.values() for r in part)
        speed = {engine: max(r["tokens_per_s"] for r in part) for engine, part in results.items()}
        rival = max(value for engine, value in speed.items() if "transformers" in engine)
        per_token, peak_text = f"{flops / 1e6:.1f} MFLOP per token", f"peak {peak / 1e9:.0f} GFLOP/s"
        print(f"\n{shape}: batch {ROWS} x {LENGTH}, {per_token}, {peak_text}")
        for engine, value in speed.items():
            row = {
                "shape": shape,
                "engine": engine,
                "tokens_per_s": value,
                "peak_share": value * flops / peak,
            }
            rows.append(row)
            print(f"  {engine:<32} {value:8.0f} tokens/s   {row['peak_share']:5.0%} of the peak")
        ratio = speed["shoestring"] / rival
        is_missed |= ratio < TARGETS[shape]
        print(f"  ours / best of transformers: {ratio:.2f} (target {TARGETS[shape]})")
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")
    return 3 if is_missed else 0


if __name__ == "__main__":
    sys.exit(main())
