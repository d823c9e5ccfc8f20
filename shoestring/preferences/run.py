"""A run that learns from preferences: its model, data and optimizer; how it is built, saved and restored."""

import json
import logging
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from shoestring import config as configs
from shoestring.cost.step import Flops
from shoestring.device import Runtime
from shoestring.durable import write_atomic
from shoestring.errors import DataError
from shoestring.model.hf.folder import save_model
from shoestring.model.transformer import Transformer
from shoestring.preferences.data import Batches, Preferences, cut
from shoestring.preferences.encode import Kind, load_preferences
from shoestring.preferences.recipe import ComparisonConfig
from shoestring.train import checkpoint, state
from shoestring.train.memory import micro_tokens
from shoestring.train.optim import Optimizers, build_optimizers
from shoestring.train.report import receipt
from shoestring.train.runs.flops import saved_flops
from shoestring.train.runs.recipe import check_past
from shoestring.train.tuning import Start, describe, load_adapter_of, open_start, origin, save_checkpoint

log = logging.getLogger(__name__)

EPOCH_STEPS = 32
"""Steps of an epoch, where the recipe does not say how large they are."""
MOST_UNITS = 32
Load = Callable[[ComparisonConfig, Runtime, Start, Iterable[int]], Transformer]
"""Loads the model to train, as `tuning.load_start` does."""


@dataclass
class ComparisonRun:
    """Model, preferences, optimizer and progress of a run."""

    config: ComparisonConfig
    out: Path
    data: Preferences
    heldout: list[int]
    """Numbers of the units that are scored and not learned from."""
    manifest: dict[str, Any]
    """Hashes and counts of the data files and of the model that the run started from."""
    model: Transformer
    optimizers: Optimizers
    batches: Batches
    verb: str
    """Words for the model card: what was done to the model, by which command."""
    least: int
    """Units of a batch at least."""
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
    def total_steps(self) -> int:
        return max(1, round(self.config.epochs * len(self.batches.all)))

    @property
    def is_finished(self) -> bool:
        return self.step >= self.total_steps

    @property
    def heldout_batches(self) -> list[list[int]]:
        """The held-out units in batches."""
        return cut(self.heldout, self.config.batch_size, self.least)


@dataclass(frozen=True, kw_only=True)
class Beginning:
    """A run at its start, and the checkpoint that it goes on from."""

    run: ComparisonRun
    latest: Path | None


def build(
    config: ComparisonConfig,
    runtime: Runtime,
    out: Path,
    *,
    resume: bool,
    load: Load,
    kind: Kind = "pairs",
    verb: str,
    say: Callable[[str], None] = log.info,
) -> Beginning:
    """The run at its start, with the weights of its newest checkpoint if it is resumed; then `restore` it.

    `say` gets a line about each slow part.
    """
    if not resume:
        checkpoint.refuse_to_overwrite(out)
    latest = checkpoint.latest(out / "checkpoints") if resume else None
    start = open_start(config, out, latest)
    config = replace(config, seq_len=start.seq_len)
    say("reading the preferences")
    data = load_preferences(config, start.files.tokenizer, start.files.template, kind)
    train, heldout = data.split(config.heldout_fraction)
    config = replace(
        config,
        batch_size=config.batch_size or min(max(len(train) // EPOCH_STEPS, 2), MOST_UNITS),
        micro_tokens=config.micro_tokens
        or micro_tokens(start.shape, runtime, gradient_checkpointing=config.gradient_checkpointing),
    )
    check_past(config, out)
    least = 2 if kind == "answers" else 1
    if kind == "answers" and len(train) < 2:
        raise DataError("KTO compares each answer with another one; give at least two")
    say(f"{len(train):,} preferences to learn from, {len(heldout):,} held out; loading {config.model}")
    model = load(config, runtime, start, data.turn_ends)
    model.gradient_checkpointing = config.gradient_checkpointing
    first = origin(config, out, start.weights, latest)
    run = ComparisonRun(
        config=config,
        out=out,
        data=data,
        heldout=heldout,
        manifest={**data.manifest, "heldout": len(heldout), "start": first},
        model=model,
        optimizers=build_optimizers(model, config.optim),
        batches=Batches(train, config.batch_size, seed=config.seed, least=least),
        verb=verb,
        least=least,
    )
    if latest is None and resume:
        log.warning("%s holds no checkpoint yet: the run starts from its beginning", out)
    return Beginning(run=run, latest=latest)


def restore(beginning: Beginning) -> ComparisonRun:
    """The run at its newest checkpoint, if it has one, with its recipe and data written down."""
    run = beginning.run
    if beginning.latest is not None:
        if run.config.lora.rank:
            load_adapter_of(run, beginning.latest)
        values = state.load_trainer(beginning.latest, run.optimizers)
        if values["data"] != run.data.key:
            raise DataError(
                "the preferences or their template changed since the run was saved; "
                "put the files back as they were, or start anew in another --out"
            )
        run.step, run.tokens = values["step"], values["tokens"]
        lengths = [len(answer.ids) for answer in run.data.answers]
        mean = max(1, round(sum(lengths) / len(lengths)))
        run.flops = saved_flops(values, run.model.config, run.tokens, mean)
        run.segments = [receipt.Segment.of(segment) for segment in values["segments"]]
    write_atomic(run.out / "config.toml", configs.dumps(run.config))
    write_atomic(run.out / "data.json", json.dumps(run.manifest, indent=1))
    return run


def save(run: ComparisonRun) -> Path:
    """Save a checkpoint: the model in Hugging Face layout or the adapter alone, and the trainer's state."""
    values = {
        "step": run.step,
        "tokens": run.tokens,
        "flops": run.flops,
        "data": run.data.key,
        "segments": [asdict(segment) for segment in run.segments],
    }
    return save_checkpoint(run, partial(write_model, run), values)


def write_model(run: ComparisonRun, folder: Path) -> None:
    """Write the current model, its tokenizer, chat template and card into a new folder."""
    tokenizer = run.out / "tokenizer"
    save_model(run.model, folder, tokenizer_files=tokenizer, lineage=_lineage(run), name=run.name)


def _lineage(run: ComparisonRun) -> str:
    """Text of the model card: start, settings and data, with hashes."""
    config = run.config
    weights = f"LoRA of rank {config.lora.rank}, merged" if config.lora.rank else "all weights"
    lines = [
        f"{run.verb} from {describe(run.manifest['start'])}: {weights}, {run.step:,} steps of "
        f"{config.batch_size}, template {run.manifest['template']}, seed {config.seed}.",
        "",
        "| preferences from | sha256 | used | too long |",
        "|---|---|---|---|",
    ]
    for file in run.manifest["files"]:
        cells = (file["path"], file["sha256"], f"{file['preferences']:,}", f"{file['too_long']:,}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
