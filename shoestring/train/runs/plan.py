"""The plan of a run before it starts: its steps, FLOPs and memory, from its recipe and the model's shape."""

from collections import Counter
from dataclasses import dataclass

from shoestring.cost.memory import TrainingMemory, training_memory
from shoestring.cost.optimizer import newton_schulz, stacks
from shoestring.cost.step import Flops, Pass, added, learning
from shoestring.model.config import ModelConfig
from shoestring.train import schedule
from shoestring.train.pretrain_recipe import PretrainConfig
from shoestring.train.runs.flops import method_of

LOCAL_SHARE = 0.35
"""Share of the measured peak that small models of this program reach in training on processors."""


@dataclass(frozen=True, kw_only=True)
class RunPlan:
    """The work of a run of pretraining."""

    steps: int
    tokens: int
    flops: Flops
    memory: TrainingMemory


def pretraining_plan(config: PretrainConfig, shape: ModelConfig) -> RunPlan:
    """The steps of the schedule one by one: growing batches, and MTP modules while their loss counts."""
    kinds, tokens = Counter[tuple[int, int]](), 0
    while tokens < config.total_tokens:
        progress = tokens / config.total_tokens
        rows = schedule.batch_rows(progress, config.batch_size, config.schedule)
        mtp = schedule.mtp_weight(progress, config.schedule)
        kinds[rows, shape.num_nextn_predict_layers if mtp else 0] += 1
        tokens += rows * config.seq_len
    parts = []
    for (rows, depths), count in kinds.items():
        size = rows * config.seq_len
        work = Pass.of_rows(rows, config.seq_len, (size,) * (1 + depths))
        flops = learning(shape, work, method_of(config))
        if config.optim.name == "muon":
            flops["optimizer"] = newton_schulz(stacks(shape, depths=depths), config.optim.newton_schulz_steps)
        parts.append({name: count * value for name, value in flops.items()})
    memory = training_memory(
        shape,
        tokens=min(config.batch_size, config.micro_batch_size) * config.seq_len,
        muon=config.optim.name == "muon",
        gradient_checkpointing=config.gradient_checkpointing,
    )
    return RunPlan(steps=kinds.total(), tokens=tokens, flops=added(*parts), memory=memory)
