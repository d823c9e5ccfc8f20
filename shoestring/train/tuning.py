"""Parts of every run that trains an existing model: its start, tokenizer, checkpoints and adapter."""

import json
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch

from shoestring.data.chat.recipe import DEFAULT_SEQ_LEN
from shoestring.data.folder import sha256_of
from shoestring.device import Runtime
from shoestring.durable import new_folder
from shoestring.errors import CheckpointError, ConfigError
from shoestring.model.config import ModelConfig
from shoestring.model.hf.checkpoint import GENERATION_FILE, Checkpoint
from shoestring.model.hf.folder import copy_tokenizer
from shoestring.model.hf.peft import load_adapter
from shoestring.model.hf.reward import load_head, save_head
from shoestring.model.lora import LoraConfig
from shoestring.model.presets import PRESETS
from shoestring.model.reward import RewardModel
from shoestring.model.transformer import Transformer, initialize
from shoestring.tokenizer.chat.deepseek import TEMPLATE_FILE, DeepSeekTemplate
from shoestring.tokenizer.special import ASSISTANT
from shoestring.train import checkpoint, state
from shoestring.train.finish import write_model_folder
from shoestring.train.optim import Optimizers
from shoestring.train.runs import trainable
from shoestring.train.runs.trainable import load_trainable, merged, open_trainable


class TuningConfig(Protocol):
    """A recipe that trains an existing model, as far as its start needs it."""

    @property
    def model(self) -> str: ...
    @property
    def tokenizer(self) -> str: ...
    @property
    def template(self) -> str: ...
    @property
    def seq_len(self) -> int: ...
    @property
    def seed(self) -> int: ...
    @property
    def lora(self) -> LoraConfig: ...


class TuningRun(Protocol):
    """A run of such a recipe, as far as its checkpoints need it."""

    out: Path
    model: Transformer
    optimizers: Optimizers
    step: int

    @property
    def config(self) -> Any:
        """A TuningConfig."""


@dataclass(frozen=True, kw_only=True)
class Start:
    """A model to train, opened and not yet loaded."""

    weights: Checkpoint | None
    """The model, or the newest checkpoint of a run without LoRA; None for a preset's random weights."""
    shape: ModelConfig
    files: Checkpoint
    """The run's own copy of the tokenizer and the chat template."""
    seq_len: int
    """The recipe's, or DEFAULT_SEQ_LEN in the model's context."""


def open_start(config: TuningConfig, out: Path, latest: Path | None) -> Start:
    """Open the model of the recipe, or the newest checkpoint `latest`, and copy the tokenizer to `out`.

    Raises ConfigError for a recipe that does not fit the model, TokenizerError, CheckpointError.
    """
    weights = _start(config, latest)
    shape = PRESETS[config.model] if weights is None else weights.config
    context = shape.max_position_embeddings
    if config.seq_len > context:
        raise ConfigError(
            f"seq_len = {config.seq_len}, but {config.model} has a context of {context} tokens; "
            f"--set seq_len={context} is the longest"
        )
    files = _tokenizer_files(config, weights, out, is_own=latest is not None)
    if weights is None:  # random weights can have any vocabulary
        shape = replace(shape, vocab_size=max(shape.vocab_size, files.tokenizer.vocab_size))
    files.tokenizer.check_fits(shape.vocab_size)
    seq_len = config.seq_len or min(DEFAULT_SEQ_LEN, context)
    return Start(weights=weights, shape=shape, files=files, seq_len=seq_len)


def load_start(config: TuningConfig, runtime: Runtime, start: Start, turn_ends: Iterable[int]) -> Transformer:
    """The model to train, which ends its turns with `turn_ends`; with LoRA its base has compute precision."""
    if start.weights is None:
        generator = torch.Generator(runtime.device).manual_seed(config.seed)
        shape = replace(start.shape, **start.files.tokenizer.model_ids)  # type: ignore[arg-type]
        model = initialize(Transformer(shape, runtime.compute_dtype).to(runtime.device), generator)
    else:
        model = load_trainable(start.weights, config.lora, runtime, seed=config.seed)
    model.config = model.config.with_end_tokens(tuple(turn_ends))
    return model.train()


def save_checkpoint(run: TuningRun, write_model: Callable[[Path], None], values: Mapping[str, Any]) -> Path:
    """Save a checkpoint: the model by `write_model` or the adapter alone, and the trainer's state."""

    def write(folder: Path) -> None:
        write_weights(run, write_model, folder)
        state.save_trainer(folder, run.optimizers, values)

    return checkpoint.save(run.out / "checkpoints", run.step, write)


def write_weights(run: TuningRun, write_model: Callable[[Path], None], folder: Path) -> None:
    """Write the model by `write_model`, or the adapter alone, into a folder."""
    if run.config.lora.rank:
        write_adapter(run, folder)
    else:
        write_model(folder)


def write_result(run: TuningRun, write_model: Callable[[Path], None]) -> None:
    """Leave the final model in `out/model`; after a LoRA run merged, and the adapter in `out/adapter`."""
    if run.config.lora.rank:
        write_model_folder(run.out / "adapter", partial(write_adapter, run))
        run.model = merged(run.model)
    write_model_folder(run.out / "model", write_model)


def load_adapter_of(run: TuningRun, folder: Path) -> None:
    """Read the adapter of a checkpoint into the run's model, and a reward model's head. CheckpointError."""
    load_adapter(run.model, folder)
    if isinstance(run.model, RewardModel):
        load_head(run.model, folder)


def write_adapter(run: TuningRun, folder: Path) -> None:
    """Write the current adapter, a reward model's head, the tokenizer and the chat template into a folder."""
    trainable.write_adapter(run.model, folder, base=run.config.model, tokenizer=run.out / "tokenizer")
    if isinstance(run.model, RewardModel):
        save_head(run.model, folder)


def origin(config: TuningConfig, out: Path, start: Checkpoint | None, latest: Path | None) -> dict[str, Any]:
    """Origin of the model that the run started from: a hub commit, or the hashes of a folder's weights.

    Raises CheckpointError when a resumed adapter would be put on another base model.
    """
    if latest is not None:
        try:
            first = dict(json.loads((out / "data.json").read_text(encoding="utf-8"))["start"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"{out / 'data.json'} cannot be read ({error}); restore it") from None
        is_adapter = start is None or start.folder != latest
        if is_adapter and origin(config, out, start, None) != first:
            raise CheckpointError(f"{config.model} is not what this run's adapter began on; put it back")
        return first
    name = Path(config.model).name if Path(config.model).exists() else config.model
    if start is None:
        return {"name": name, "weights": "random", "seed": config.seed}
    if start.commit is not None:
        return {"name": name, "commit": start.commit}
    files = sorted(start.folder.glob("*.safetensors"))
    return {"name": name, "sha256": {file.name: sha256_of(file) for file in files}}


def describe(origin: Mapping[str, Any]) -> str:
    """Markdown that names the model a run started from, with its commit or its hashes."""
    marks = [origin[key] for key in ("commit",) if key in origin] + list(origin.get("sha256", {}).values())
    return f"`{origin['name']}`" + (f" ({', '.join(marks)})" if marks else " (random weights)")


def _start(config: TuningConfig, latest: Path | None) -> Checkpoint | None:
    """The weights to train; None for a preset's random ones."""
    if config.model in PRESETS and latest is None:
        if not config.tokenizer:
            raise ConfigError(f"model = {config.model!r} is a preset; name a folder with tokenizer=")
        if config.lora.rank:
            raise ConfigError(f"model = {config.model!r} has random weights; LoRA needs a trained model")
        return None
    return open_trainable(config.model, config.lora, latest)


def _tokenizer_files(
    config: TuningConfig, start: Checkpoint | None, out: Path, *, is_own: bool
) -> Checkpoint:
    """The run's own tokenizer and template when resuming, else a copy of the recipe's or the start's."""
    folder = out / "tokenizer"
    if is_own:
        return Checkpoint.open(folder)
    if config.tokenizer:
        source = Path(config.tokenizer).expanduser()
    else:
        assert start is not None  # _start asks for a tokenizer beside a preset
        source = start.tokenizer_folder
    with new_folder(folder, needed_bytes=0) as fresh:
        copy_tokenizer(source, fresh)
        if start is not None and start.generation:
            shutil.copyfile(start.generation_folder / GENERATION_FILE, fresh / GENERATION_FILE)
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
