"""A fine-tuning run: its model, data and optimizer, how it is built, saved and restored."""

import json
import logging
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from shoestring import config as configs
from shoestring.data.conversation_files import load_conversations
from shoestring.data.conversations import Conversations, Order
from shoestring.data.folder import sha256_of
from shoestring.device import Runtime
from shoestring.durable import new_folder, write_atomic
from shoestring.errors import CheckpointError, ConfigError
from shoestring.model.hf.checkpoint import GENERATION_FILE, Checkpoint
from shoestring.model.hf.folder import copy_tokenizer, load_model, save_model
from shoestring.model.hf.hub import resolve
from shoestring.model.hf.peft import load_adapter, save_adapter
from shoestring.model.lora import add_adapters
from shoestring.model.presets import PRESETS
from shoestring.model.transformer import Transformer, initialize
from shoestring.tokenizer.bpe import Tokenizer
from shoestring.tokenizer.chat.deepseek import TEMPLATE_FILE, DeepSeekTemplate
from shoestring.tokenizer.special import ASSISTANT
from shoestring.train import checkpoint, state
from shoestring.train.optim import Optimizers, build_optimizers
from shoestring.train.report import receipt
from shoestring.train.sft_recipe import SFTConfig

log = logging.getLogger(__name__)


@dataclass
class SFTRun:
    """Model, conversations, optimizer and progress of a run."""

    config: SFTConfig
    out: Path
    data: Conversations
    heldout: list[int]
    manifest: dict[str, Any]
    """Hashes and counts of the data files and of the model that the run started from."""
    model: Transformer
    optimizers: Optimizers
    order: Order
    step: int = 0
    tokens: int = 0
    """Inputs so far, padding not counted."""
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
        return self.tokens >= self.total_tokens

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
    start = Checkpoint.open(latest) if latest and not config.lora.rank else _start(config)
    shape = PRESETS[config.model] if start is None else start.config
    if config.seq_len > shape.max_position_embeddings:
        raise ConfigError(
            f"seq_len = {config.seq_len}, but {config.model} has max_position_embeddings = "
            f"{shape.max_position_embeddings}; lower seq_len"
        )
    tokenizer_files = _tokenizer_files(config, start, out, is_own=latest is not None)
    tokenizer, template = tokenizer_files.tokenizer, tokenizer_files.template
    tokenizer.check_fits(shape.vocab_size)
    say("reading the conversations")
    files = [Path(name).expanduser() for name in config.data]
    data = load_conversations(files, tokenizer, template, seq_len=config.seq_len, learn=config.learn)
    train, heldout = data.split(config.heldout_fraction)
    say(f"{len(train):,} conversations to learn from, {len(heldout):,} held out; loading {config.model}")
    model = _model(config, runtime, start, tokenizer, data)
    run = SFTRun(
        config=config,
        out=out,
        data=data,
        heldout=heldout,
        manifest={**data.manifest, "heldout": len(heldout), "start": _origin(config, out, start, latest)},
        model=model,
        optimizers=build_optimizers(model, config.optim),
        order=Order(data, train, seed=config.seed),
    )
    if latest is not None:
        _restore(run, latest)
    elif resume:
        log.warning("%s holds no checkpoint yet: the run starts from its beginning", out)
    write_atomic(out / "config.toml", configs.dumps(config))
    write_atomic(out / "data.json", json.dumps(run.manifest, indent=1))
    return run


def save(run: SFTRun) -> Path:
    """Save a checkpoint: the model in Hugging Face layout or the adapter alone, and the trainer's state."""

    def write(folder: Path) -> None:
        if run.config.lora.rank:
            write_adapter(run, folder)
        else:
            write_model(run, folder)
        values = {
            "step": run.step,
            "tokens": run.tokens,
            "order": run.order.state(),
            "segments": [asdict(segment) for segment in run.segments],
        }
        state.save_trainer(folder, run.optimizers, values)

    return checkpoint.save(run.out / "checkpoints", run.step, write)


def write_model(run: SFTRun, folder: Path) -> None:
    """Write the current model, its tokenizer, chat template and card into a new folder."""
    tokenizer = run.out / "tokenizer"
    save_model(run.model, folder, tokenizer_files=tokenizer, lineage=_lineage(run), name=run.name)


def write_adapter(run: SFTRun, folder: Path) -> None:
    """Write the current adapter, the tokenizer and the chat template into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    save_adapter(run.model, folder, base=run.config.model)
    copy_tokenizer(run.out / "tokenizer", folder)


def _restore(run: SFTRun, folder: Path) -> None:
    """Continue from a checkpoint; a full run's weights were loaded from it already."""
    if run.config.lora.rank:
        load_adapter(run.model, folder)
    values = state.load_trainer(folder, run.optimizers)
    run.order.load_state(values["order"])
    run.step, run.tokens = values["step"], values["tokens"]
    run.segments = [receipt.Segment.of(segment) for segment in values["segments"]]


def _start(config: SFTConfig) -> Checkpoint | None:
    """The model to start from; None for a preset's random weights."""
    if config.model in PRESETS:
        if not config.tokenizer:
            raise ConfigError(f"model = {config.model!r} is a preset; name a folder with tokenizer=")
        if config.lora.rank:
            raise ConfigError(f"model = {config.model!r} has random weights; LoRA needs a trained model")
        return None
    start = Checkpoint.open(resolve(config.model))
    if start.quantization is not None:
        raise ConfigError(f"{config.model} is packed by `quantize`; start from what it was made of")
    return start


def _model(
    config: SFTConfig, runtime: Runtime, start: Checkpoint | None, tokenizer: Tokenizer, data: Conversations
) -> Transformer:
    """The model to train; with LoRA its base is kept in the compute precision."""
    generator = torch.Generator(runtime.device).manual_seed(config.seed)
    if start is None:
        shape = replace(PRESETS[config.model], **tokenizer.model_ids)  # type: ignore[arg-type]
        model = initialize(Transformer(shape, runtime.compute_dtype).to(runtime.device), generator)
    else:
        dtype = runtime.compute_dtype if config.lora.rank else torch.float32
        model = load_model(start, dtype=dtype, compute_dtype=runtime.compute_dtype, device=runtime.device)
    model.config = model.config.with_end_tokens(data.turn_ends)
    if config.lora.rank:
        add_adapters(model, config.lora, generator)
    return model.train()


def _tokenizer_files(config: SFTConfig, start: Checkpoint | None, out: Path, *, is_own: bool) -> Checkpoint:
    """The run's own tokenizer and template when resuming, else a copy of the recipe's or the start's."""
    folder = out / "tokenizer"
    if is_own:
        return Checkpoint.open(folder)
    if config.tokenizer:
        source = Path(config.tokenizer).expanduser()
    else:
        assert start is not None  # _start asks for a tokenizer beside a preset
        source = start.folder
    with new_folder(folder, needed_bytes=0) as fresh:
        copy_tokenizer(source, fresh)
        if start is not None and start.generation:
            shutil.copyfile(start.folder / GENERATION_FILE, fresh / GENERATION_FILE)
        shutil.rmtree(folder, ignore_errors=True)
    tokenizer_files = Checkpoint.open(folder)
    if config.template:
        shutil.copyfile(_template_file(config.template), folder / TEMPLATE_FILE)
    elif not tokenizer_files.has_template:
        if ASSISTANT not in tokenizer_files.tokenizer.specials:
            raise ConfigError(
                f"{config.model} has no chat template, and its tokenizer lacks DeepSeek's special tokens; "
                "name a chat template's file with template="
            )
        DeepSeekTemplate().save(folder)
    return tokenizer_files


def _template_file(name: str) -> Path:
    path = Path(name).expanduser()
    if path.is_dir():
        path = path / TEMPLATE_FILE
    if not path.is_file():
        raise ConfigError(f"template = {name!r} is not a chat template's file")
    return path


def _origin(config: SFTConfig, out: Path, start: Checkpoint | None, latest: Path | None) -> dict[str, Any]:
    """Origin of the model that the run started from: a hub commit, or the hashes of a folder's weights.

    Raises CheckpointError when a resumed adapter would be put on another base model.
    """
    if latest is not None:
        try:
            origin = dict(json.loads((out / "data.json").read_text(encoding="utf-8"))["start"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"{out / 'data.json'} cannot be read ({error}); restore it") from None
        is_adapter = start is None or start.folder != latest
        if is_adapter and _origin(config, out, start, None) != origin:
            raise CheckpointError(f"{config.model} is not what this run's adapter began on; put it back")
        return origin
    name = Path(config.model).name if Path(config.model).exists() else config.model
    if start is None:
        return {"name": name, "weights": "random", "seed": config.seed}
    if start.commit is not None:
        return {"name": name, "commit": start.commit}
    files = sorted(start.folder.glob("*.safetensors"))
    return {"name": name, "sha256": {file.name: sha256_of(file) for file in files}}


def _lineage(run: SFTRun) -> str:
    """Text of the model card: start, settings and data, with hashes."""
    start, config = run.manifest["start"], run.config
    weights = f"LoRA of rank {config.lora.rank}, merged" if config.lora.rank else "all weights"
    marks = [start[key] for key in ("commit",) if key in start] + list(start.get("sha256", {}).values())
    origin = f"`{start['name']}`" + (f" ({', '.join(marks)})" if marks else " (random weights)")
    lines = [
        f"Fine-tuned by `shoestring sft` from {origin}: {weights}, "
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
