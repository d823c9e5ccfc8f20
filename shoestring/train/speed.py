"""How fast a recipe trains on this machine, measured on a few of its steps."""

import time

import torch

from shoestring.device import Runtime
from shoestring.model.transformer import Transformer, initialize
from shoestring.train.optim import build_optimizers
from shoestring.train.pretrain_recipe import PretrainConfig
from shoestring.train.pretrain_run import model_config
from shoestring.train.step import StepSettings, train_step


def measure_speed(config: PretrainConfig, runtime: Runtime, steps: int = 8) -> float:
    """Tokens per second of the recipe's full-size steps here, on random ids: the mean after a first one."""
    shape = model_config(config.model)
    model = initialize(
        Transformer(shape, runtime.compute_dtype).to(runtime.device),
        torch.Generator(runtime.device).manual_seed(0),
    )
    optimizers = build_optimizers(model, config.optim)
    settings = StepSettings(
        lr_share=0.1,
        mtp_weight=0.3,
        bias_speed=0.0,
        balance_alpha=0.0,
        clip=1.0,
        micro_rows=config.micro_batch_size,
    )
    ids = torch.randint(0, shape.vocab_size, (config.batch_size, config.seq_len + 1), device=runtime.device)
    start = 0.0
    for step in range(steps + 1):
        if step == 1:  # the first one also compiles kernels and fills memory
            start = time.perf_counter()
        train_step(model, optimizers, ids[:, :-1], ids[:, 1:], settings)
    return steps * config.batch_size * config.seq_len / (time.perf_counter() - start)
