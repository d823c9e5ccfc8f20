"""A step of training is the same to the bit with any number of threads: they may change in a run."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from shoestring import openmp

ROOT = Path(__file__).parents[2]
STEPS = """
import shoestring, torch
from dataclasses import replace
from shoestring.model.config import GQAConfig
from shoestring.model.presets import PRESETS
from shoestring.model.transformer import Transformer, initialize
from shoestring.train.optim import OptimConfig, build_optimizers
from shoestring.train.step import StepSettings, micro_batches, train_step

V3 = replace(PRESETS["v3-12m"], num_hidden_layers=2, vocab_size=1024)
DENSE = replace(V3, moe=None, attention=GQAConfig(num_key_value_heads=2, head_dim=64), model_type="llama",
                num_nextn_predict_layers=0)
SETTINGS = StepSettings(lr_share=1.0, mtp_weight=0.3, bias_speed=1e-3, balance_alpha=1e-4, max_grad_norm=1.0)

def trained(shape, optimizer, threads, in_bf16):
    torch.set_num_threads(threads)
    model = initialize(Transformer(shape), torch.Generator().manual_seed(0)).train()
    if in_bf16:
        model.multiply_in_bf16()
    optimizers = build_optimizers(model, OptimConfig(name=optimizer))
    ids = torch.randint(0, shape.vocab_size, (7, 602), generator=torch.Generator().manual_seed(1))
    batches = micro_batches(ids[:, :-1], ids[:, 1:], 7)
    stats = train_step(model, optimizers, batches, SETTINGS)
    return stats, [p.detach() for p in model.parameters()]

RUNS = ((V3, "adamw", False), (V3, "muon", False), (DENSE, "muon", False), (V3, "adamw", True))
for shape, optimizer, in_bf16 in RUNS:
    stats, weights = trained(shape, optimizer, 1, in_bf16)
    for threads in (2, 3):
        other_stats, others = trained(shape, optimizer, threads, in_bf16)
        assert other_stats == stats, (optimizer, threads, stats, other_stats)
        assert all(map(torch.equal, others, weights)), (optimizer, threads)
print("same")
"""


@pytest.mark.skipif(openmp.PRODUCTS not in os.environ, reason="MKL promises one order on Intel's CPUs alone")
def test_steps_are_the_same_with_one_thread_and_with_three() -> None:
    done = subprocess.run(
        [sys.executable, "-c", STEPS],
        env={**os.environ, "OMP_NUM_THREADS": "3", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.stdout == "same\n", done.stderr
