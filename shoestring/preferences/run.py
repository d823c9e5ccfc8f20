"""A run of learning from preferences: its model, data, reference and optimizer; built, saved and restored."""

import json
import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from shoestring import config as configs
from shoestring.device import Runtime
from shoestring.durable import write_atomic
from shoestring.errors import DataError
from shoestring.model.hf.folder import save_model
from shoestring.model.hf.peft import load_adapter
from shoestring.model.transformer import Transformer
from shoestring.preferences.data import Batches, Preferences
from shoestring.preferences.encode import Kind, load_preferences
from shoestring.preferences.logps import (
    FILE,
    Reference,
    compute_reference,
    reference_key,
    stored_or_computed,
)
from shoestring.preferences.recipe import PreferenceConfig
from shoestring.train import checkpoint, state
from shoestring.train.memory import micro_tokens
from shoestring.train.optim import Optimizers, build_optimizers
from shoestring.train.report import receipt
from shoestring.train.tuning import describe, load_start, open_start, origin, save_checkpoint

log = logging.getLogger(__name__)


@dataclass
class PreferenceRun:
    """Model, preferences, reference, optimizer and progress of a run."""

    config: PreferenceConfig
    out: Path
    data: Preferences
    heldout: list[int]
    """Numbers of the units that are scored and not learned from."""
    manifest: dict[str, Any]
    """Hashes and counts of the data files and of the model that the run started from."""
    model: Transformer
    optimizers: Optimizers
    batches: Batches
    reference: Reference | None
    """None for a loss without one."""
    step: int = 0
    tokens: int = 0
    """Inputs so far, padding not counted."""
    segments: list[receipt.Segment] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Title: the name of the model that the run started from, and that of the run."""
        return f"{Path(self.config.model).name}: {self.out.resolve().name}"

    @property
    def total_steps(self) -> int:
        return max(1, round(self.config.epochs * len(self.batches.all)))

    @property
    def is_finished(self) -> bool:
        return self.step >= self.total_steps


def build(
    config: PreferenceConfig,
    runtime: Runtime,
    out: Path,
    *,
    resume: bool,
    say: Callable[[str], None] = log.info,
) -> PreferenceRun:
    """The run at its start or at its newest checkpoint; `say` gets a line about each slow part."""
    if not resume:
        checkpoint.refuse_to_overwrite(out)
    latest = checkpoint.latest(out / "checkpoints") if resume else None
    start = open_start(config, out, latest)
    say("reading the preferences")
    config = replace(config, micro_tokens=config.micro_tokens or micro_tokens(start.shape, runtime))
    kind: Kind = "answers" if config.loss.loss_type == "kto" else "pairs"
    data = load_preferences(config, start.files.tokenizer, start.files.template, kind)
    train, heldout = data.split(config.heldout_fraction)
    say(f"{len(train):,} preferences to learn from, {len(heldout):,} held out; loading {config.model}")
    if kind == "answers" and len(train) < 2:
        raise DataError("KTO compares each answer with another one; give at least two")
    model = load_start(config, runtime, start, data.turn_ends)
    model.gradient_checkpointing = config.gradient_checkpointing
    manifest = {
        **data.manifest,
        "heldout": len(heldout),
        "start": origin(config, out, start.weights, latest),
    }
    batches = Batches(train, config.batch_size, seed=config.seed)
    run = PreferenceRun(
        config=config,
        out=out,
        data=data,
        heldout=heldout,
        manifest=manifest,
        model=model,
        optimizers=build_optimizers(model, config.optim),
        batches=batches,
        reference=None,
    )
    if latest is None and resume:
        log.warning("%s holds no checkpoint yet: the run starts from its beginning", out)
    run.reference = _reference(run, say, is_resumed=latest is not None)
    if latest is not None:
        _restore(run, latest)
    write_atomic(out / "config.toml", configs.dumps(config))
    write_atomic(out / "data.json", json.dumps(run.manifest, indent=1))
    return run


def heldout_batches(run: PreferenceRun) -> list[list[int]]:
    """The held-out units in batches."""
    size = run.config.batch_size
    return [run.heldout[start : start + size] for start in range(0, len(run.heldout), size)]


def save(run: PreferenceRun) -> Path:
    """Save a checkpoint: the model in Hugging Face layout or the adapter alone, and the trainer's state."""
    values = {
        "step": run.step,
        "tokens": run.tokens,
        "data": run.data.key,
        "segments": [asdict(segment) for segment in run.segments],
    }
    return save_checkpoint(run, partial(write_model, run), values)


def write_model(run: PreferenceRun, folder: Path) -> None:
    """Write the current model, its tokenizer, chat template and card into a new folder."""
    tokenizer = run.out / "tokenizer"
    save_model(run.model, folder, tokenizer_files=tokenizer, lineage=_lineage(run), name=run.name)


def _reference(run: PreferenceRun, say: Callable[[str], None], *, is_resumed: bool) -> Reference | None:
    """The log-probabilities under the model at the start, stored beside the run; None if none are needed."""
    config = run.config
    if not config.loss.needs_reference:
        return None
    compute = partial(
        compute_reference,
        run.model,
        run.data,
        [*run.batches.all, *heldout_batches(run)],
        micro_tokens=config.micro_tokens,
        with_mismatched=config.loss.loss_type == "kto",
        say=say,
    )
    settings = (config.loss.loss_type, config.batch_size, config.seed, config.heldout_fraction)
    start = json.dumps(run.manifest["start"], sort_keys=True)
    key = reference_key([run.data.key, start, *map(str, settings)])
    return stored_or_computed(run.out / FILE, key, compute, is_resumed=is_resumed)


def _restore(run: PreferenceRun, folder: Path) -> None:
    """Continue from a checkpoint; a full run's weights were loaded from it already."""
    if run.config.lora.rank:
        load_adapter(run.model, folder)
    values = state.load_trainer(folder, run.optimizers)
    if values["data"] != run.data.key:
        raise DataError(
            "the preferences or their template changed since the run was saved; "
            "put the files back as they were, or start anew in another --out"
        )
    run.step, run.tokens = values["step"], values["tokens"]
    run.segments = [receipt.Segment.of(segment) for segment in values["segments"]]


def _lineage(run: PreferenceRun) -> str:
    """Text of the model card: start, settings and data, with hashes."""
    config = run.config
    weights = f"LoRA of rank {config.lora.rank}, merged" if config.lora.rank else "all weights"
    lines = [
        f"Trained on preferences by `shoestring prefer` from {describe(run.manifest['start'])}: "
        f"{config.loss.loss_type} with beta {config.loss.strength}, {weights}, {run.step:,} steps of "
        f"{config.batch_size}, template {run.manifest['template']}, seed {config.seed}.",
        "",
        "| preferences from | sha256 | used | too long |",
        "|---|---|---|---|",
    ]
    for file in run.manifest["files"]:
        lines.append(
            f"| {file['path']} | {file['sha256']} | {file['preferences']:,} | {file['too_long']:,} |"
        )
    return "\n".join(lines)
