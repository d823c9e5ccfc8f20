"""A fine-tuning run: its model, data and optimizer, how it is built, saved and restored."""

import json
import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from shoestring import config as configs
from shoestring.cost.step import Flops
from shoestring.data.conversations import Conversations, Order
from shoestring.device import Runtime
from shoestring.durable import write_atomic
from shoestring.low_precision.model import set_precision
from shoestring.model.config import ModelConfig
from shoestring.model.hf.checkpoint import Checkpoint
from shoestring.model.hf.folder import load_model, save_model
from shoestring.model.hf.peft import load_adapter
from shoestring.model.transformer import Transformer
from shoestring.train import checkpoint, state
from shoestring.train.memory import micro_tokens
from shoestring.train.optim import Optimizers, build_optimizers
from shoestring.train.report import receipt
from shoestring.train.runs.early_stopping import EarlyStopping
from shoestring.train.runs.flops import saved_flops
from shoestring.train.runs.recipe import check_past
from shoestring.train.sft_recipe import SFTConfig
from shoestring.train.tuning import describe, load_start, open_start, origin, save_checkpoint, write_weights

log = logging.getLogger(__name__)

EPOCH_STEPS = 32
"""Steps of an epoch, where the recipe does not say how large they are and there are not many tokens."""
MOST_BATCH_TOKENS = 16_384


@dataclass
class SFTRun:
    """Model, conversations, optimizer and progress of a run."""

    config: SFTConfig
    out: Path
    data: Conversations
    heldout_data: Conversations
    """`data` too, unless held-out conversations have files of their own."""
    heldout: list[int]
    """Numbers in `heldout_data`."""
    manifest: dict[str, Any]
    """Hashes and counts of the data files and of the model that the run started from."""
    model: Transformer
    optimizers: Optimizers
    order: Order
    stopping: EarlyStopping
    step: int = 0
    tokens: int = 0
    """Inputs so far, padding not counted."""
    flops: Flops = field(default_factory=dict)
    segments: list[receipt.Segment] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Title: the name of the model that the run started from, and that of the run."""
        return f"{Path(self.config.model).name}: {self.out.resolve().name}"

    @property
    def total_tokens(self) -> int:
        return self.config.total_tokens or max(1, round(self.config.epochs * self.order.tokens_per_epoch))

    @property
    def is_finished(self) -> bool:
        return self.tokens >= self.total_tokens or self.stopping.is_due

    @property
    def progress(self) -> float:
        return min(self.tokens / self.total_tokens, 1.0)


def build(
    config: SFTConfig,
    runtime: Runtime,
    out: Path,
    *,
    resume: bool,
    say: Callable[[str], None] = log.info,
) -> SFTRun:
    """The run at its start or at its newest checkpoint; `say` gets a line about each slow part."""
    if not resume:
        checkpoint.refuse_to_overwrite(out)
    latest = checkpoint.latest(out / "checkpoints") if resume else None
    start = open_start(config, out, latest)
    config = replace(config, seq_len=start.seq_len)
    tokenizer, template = start.files.tokenizer, start.files.template
    say("reading the conversations")
    data = config.load(tokenizer, template)
    train, heldout = data.split(config.heldout_fraction)
    heldout_data = config.load(tokenizer, template, config.heldout) if config.heldout else data
    heldout = list(range(len(heldout_data))) if config.heldout else heldout
    if config.heldout and (same := int(np.isin(heldout_data.digests, data.digests).sum())):
        log.warning("%s of the %s held-out conversations are learned from, too", same, len(heldout))
    order = Order(data, train, seed=config.seed)
    config = _with_sizes(config, order.tokens_per_epoch, start.shape, runtime)
    check_past(config, out)
    say(f"{len(train):,} conversations to learn from, {len(heldout):,} held out; loading {config.model}")
    model = load_start(config, runtime, start, data.turn_ends)
    model.gradient_checkpointing = config.gradient_checkpointing
    set_precision(model, config.precision)
    run = SFTRun(
        config=config,
        out=out,
        data=data,
        heldout_data=heldout_data,
        heldout=heldout,
        manifest={
            **data.manifest,
            "heldout": len(heldout),
            **({"heldout_files": heldout_data.manifest["files"]} if config.heldout else {}),
            "start": origin(config, out, start.weights, latest),
        },
        model=model,
        optimizers=build_optimizers(model, config.optim),
        order=order,
        stopping=EarlyStopping(config.early_stopping_patience, out / "best"),
    )
    if latest is not None:
        _restore(run, latest)
    elif resume:
        log.warning("%s holds no checkpoint yet: the run starts from its beginning", out)
    write_atomic(out / "config.toml", configs.dumps(config))
    write_atomic(out / "data.json", json.dumps(run.manifest, indent=1))
    say(_steps_sentence(run))
    if sentence := _patience_sentence(run):
        log.warning("%s", sentence)
    return run


def _with_sizes(config: SFTConfig, num_tokens: int, shape: ModelConfig, runtime: Runtime) -> SFTConfig:
    """The recipe with its sizes, which it may leave to the data (of `num_tokens`) and to the machine."""
    return replace(
        config,
        batch_tokens=config.batch_tokens or max(1, min(num_tokens // EPOCH_STEPS, MOST_BATCH_TOKENS)),
        micro_tokens=config.micro_tokens
        or micro_tokens(shape, runtime, gradient_checkpointing=config.gradient_checkpointing),
    )


def _steps_sentence(run: SFTRun) -> str:
    """The number of steps; with a way out where they are too few to learn much."""
    batch, per_epoch = run.config.batch_tokens, run.order.tokens_per_epoch
    steps = max(1, round(run.total_tokens / batch))
    sentence = f"{steps:,} steps of about {min(batch, per_epoch):,} tokens"
    if steps >= EPOCH_STEPS - 2 or run.step:
        return sentence
    better = max(1, per_epoch // EPOCH_STEPS)
    return f"{sentence}, which is few: --set batch_tokens={better} makes {EPOCH_STEPS} steps an epoch"


def _patience_sentence(run: SFTRun) -> str:
    """A sentence where the run has too few evaluations for early stopping; else nothing."""
    patience, every = run.config.early_stopping_patience, run.config.eval_every
    steps = max(1, round(run.total_tokens / run.config.batch_tokens))
    if not patience or steps // every > patience:
        return ""
    better = max(1, steps // (4 * patience))
    return (
        f"of {steps:,} steps every {every}th is evaluated, too few for early_stopping_patience = {patience}; "
        f"--set eval_every={better}"
    )


def save(run: SFTRun) -> Path:
    """Save a checkpoint: the model in Hugging Face layout or the adapter alone, and the trainer's state."""
    values = {
        "step": run.step,
        "tokens": run.tokens,
        "flops": run.flops,
        "order": run.order.state(),
        "segments": [asdict(segment) for segment in run.segments],
        "stopping": run.stopping.state(),
    }
    return save_checkpoint(run, partial(write_model, run), values)


def judge(run: SFTRun, score: float) -> None:
    """Take the held-out score of this step for early stopping, which keeps the best model or adapter."""
    run.stopping.judge(score, run.step, partial(write_weights, run, partial(write_model, run)))


def load_best(run: SFTRun) -> None:
    """Put the weights of the best evaluation into the model, where early stopping kept them."""
    if not run.stopping.best_step or run.stopping.best_step == run.step:
        return
    folder = run.stopping.best_folder()
    if run.config.lora.rank:
        load_adapter(run.model, folder)
    else:
        device = next(run.model.parameters()).device
        best = load_model(Checkpoint.open(folder), dtype=torch.float32, device=device)
        run.model.load_state_dict(best.state_dict())


def write_model(run: SFTRun, folder: Path) -> None:
    """Write the current model, its tokenizer, chat template and card into a new folder."""
    tokenizer = run.out / "tokenizer"
    save_model(run.model, folder, tokenizer_files=tokenizer, lineage=_lineage(run), name=run.name)


def _restore(run: SFTRun, folder: Path) -> None:
    """Continue from a checkpoint; a full run's weights were loaded from it already."""
    if run.config.lora.rank:
        load_adapter(run.model, folder)
    values = state.load_trainer(folder, run.optimizers)
    run.order.load_state(values["order"])
    run.stopping.load_state(values.get("stopping", {}))
    run.step, run.tokens = values["step"], values["tokens"]
    mean = max(1, round(float(run.order.lengths.mean())))
    run.flops = saved_flops(values, run.model.config, run.tokens, mean)
    run.segments = [receipt.Segment.of(segment) for segment in values["segments"]]


def _lineage(run: SFTRun) -> str:
    """Text of the model card: start, settings and data, with hashes."""
    config = run.config
    weights = f"LoRA of rank {config.lora.rank}, merged" if config.lora.rank else "all weights"
    lines = [
        f"Fine-tuned by `shoestring sft` from {describe(run.manifest['start'])}: {weights}, "
        f"{run.tokens:,} tokens in {run.step:,} steps, "
        f"learning {'the assistant turns' if config.learn == 'assistant' else 'every token'}, "
        f"template {run.manifest['template']}, seed {config.seed}.",
        "",
        "| conversations from | sha256 | used | too long | tokens | learned tokens |",
        "|---|---|---|---|---|---|",
    ]
    for file in run.manifest["files"]:
        cells = (file["path"], file["sha256"], *(f"{file[key]:,}" for key in _COUNTS))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


_COUNTS = ("conversations", "too_long", "tokens", "learned_tokens")
