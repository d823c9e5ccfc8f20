"""A pretraining run: its model, data and optimizer, how it is built, saved and restored."""

import json
import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch

from shoestring import config as configs
from shoestring.cost.step import Flops
from shoestring.data.dataset import Dataset, prepare
from shoestring.data.loader import Loader
from shoestring.data.textstore import TextStore, prepare_corpus
from shoestring.device import Runtime
from shoestring.durable import cache_folder, write_atomic
from shoestring.errors import CheckpointError, ConfigError
from shoestring.low_precision.model import set_precision
from shoestring.model.config import ModelConfig
from shoestring.model.hf.checkpoint import Checkpoint
from shoestring.model.hf.folder import save_model
from shoestring.model.hf.weights import load_weights
from shoestring.model.presets import PRESETS
from shoestring.model.transformer import Transformer, initialize
from shoestring.tokenizer.bpe import Tokenizer
from shoestring.tokenizer.chat.deepseek import DeepSeekTemplate
from shoestring.train import checkpoint, state
from shoestring.train.optim import Optimizers, build_optimizers
from shoestring.train.pretrain_recipe import PretrainConfig
from shoestring.train.report import receipt
from shoestring.train.runs.flops import saved_flops
from shoestring.train.runs.recipe import check_past

log = logging.getLogger(__name__)


@dataclass
class Run:
    """Model, data, optimizer and progress of a run."""

    config: PretrainConfig
    out: Path
    tokenizer: Tokenizer
    dataset: Dataset
    model: Transformer
    optimizers: Optimizers
    loader: Loader
    bytes_per_token: float
    step: int = 0
    tokens: int = 0
    flops: Flops = field(default_factory=dict)
    segments: list[receipt.Segment] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Title: the name of the model or of the folder with its config.json, and that of the run."""
        return f"{Path(self.config.model).name}: {self.out.resolve().name}"

    @property
    def is_finished(self) -> bool:
        return self.tokens >= self.config.total_tokens

    @property
    def progress(self) -> float:
        return min(self.tokens / self.config.total_tokens, 1.0)


def build(
    config: PretrainConfig,
    runtime: Runtime,
    out: Path,
    *,
    resume: bool,
    say: Callable[[str], None] = log.info,
) -> Run:
    """The run at its start or at its newest checkpoint; `say` gets a line about each slow part."""
    shape = model_config(config.model)
    if config.seq_len > shape.max_position_embeddings:
        raise ConfigError(
            f"seq_len = {config.seq_len}, but {config.model} has max_position_embeddings = "
            f"{shape.max_position_embeddings}; lower seq_len"
        )
    if resume:
        check_past(config, out)
    else:
        checkpoint.refuse_to_overwrite(out)
        write_atomic(out / "config.toml", configs.dumps(config))
    say("reading the corpus, dropping duplicates, holding some out")
    data_cache = cache_folder("data")  # texts and shards, keyed by content, for later runs too
    store = prepare_corpus(config.data, data_cache)
    say(f"{store.sizes().sum():,} bytes in {len(store.sizes()):,} documents; making tokens of them")
    tokenizer = _tokenizer(config, shape, store, out, resume=resume)
    dataset = prepare(config.data, tokenizer, data_cache, store=store)
    shape = replace(shape, **tokenizer.model_ids)  # type: ignore[arg-type]
    model = Transformer(shape, runtime.compute_dtype).to(runtime.device)
    model.gradient_checkpointing = config.gradient_checkpointing
    set_precision(model, config.precision)
    generator = torch.Generator(runtime.device).manual_seed(config.seed)
    loader = Loader(
        dataset.train,
        seq_len=config.seq_len,
        batch_size=config.batch_size,
        seed=config.seed,
        rank=runtime.rank,
        world_size=runtime.world_size,
        fim_rate=config.data.fim_rate,
    )
    run = Run(
        config=config,
        out=out,
        tokenizer=tokenizer,
        dataset=dataset,
        model=initialize(model, generator).train(),
        optimizers=build_optimizers(model, config.optim),
        loader=loader,
        bytes_per_token=float(dataset.train.document_bytes.sum()) / max(len(dataset.train.ids), 1),
    )
    if resume:
        restore(run)
        # Not sooner: a recipe that does not fit must not replace the one that the run was made with.
        write_atomic(out / "config.toml", configs.dumps(config))
    write_atomic(out / "data.json", json.dumps(dataset.manifest, indent=1))
    return run


def save(run: Run) -> Path:
    """Save a checkpoint in Hugging Face layout, with the trainer's state beside it."""

    def write(folder: Path) -> None:
        write_model(run, folder)
        values = {
            "step": run.step,
            "tokens": run.tokens,
            "flops": run.flops,
            "loader": run.loader.state(),
            "segments": [asdict(segment) for segment in run.segments],
        }
        state.save_trainer(folder, run.optimizers, values)

    return checkpoint.save(run.out / "checkpoints", run.step, write)


def write_model(run: Run, folder: Path) -> None:
    """Write the current model, its tokenizer and its card into a new folder."""
    lineage = (
        f"Trained from random weights by `shoestring pretrain` for {run.tokens:,} tokens of "
        f"{', '.join(run.config.data.sources)} (seed {run.config.seed}). "
        "It completes text; it follows no instructions."
    )
    save_model(run.model, folder, tokenizer_files=run.out / "tokenizer", lineage=lineage, name=run.name)
    (folder / "chat_template.jinja").unlink(missing_ok=True)  # trained on no conversation


def restore(run: Run) -> None:
    """Continue from the newest whole checkpoint; without any, from the start."""
    folder = checkpoint.latest(run.out / "checkpoints")
    if folder is None:
        log.warning("%s holds no checkpoint yet: the run starts from its beginning", run.out)
        return
    opened_checkpoint = Checkpoint.open(folder)
    if opened_checkpoint.config != run.model.config:
        raise CheckpointError(f"{folder} holds another model shape than the recipe; use the run's own recipe")
    load_weights(run.model, opened_checkpoint, dtype=torch.float32, device=run.model.device)
    values = state.load_trainer(folder, run.optimizers)
    run.loader.load_state(values["loader"])
    run.step, run.tokens = values["step"], values["tokens"]
    run.flops = saved_flops(values, run.model.config, run.tokens, run.config.seq_len)
    run.segments = [receipt.Segment.of(segment) for segment in values["segments"]]


def model_config(name: str) -> ModelConfig:
    """The shape of a preset, or of a folder's config.json."""
    if name in PRESETS:
        return PRESETS[name]
    if (Path(name) / "config.json").is_file():
        return Checkpoint.open(name).config
    raise ConfigError(
        f"model = {name!r} is neither a folder with a config.json nor one of {', '.join(PRESETS)}"
    )


def _tokenizer(
    config: PretrainConfig, shape: ModelConfig, store: TextStore, out: Path, *, resume: bool
) -> Tokenizer:
    """The run's own tokenizer when resuming, else the recipe's, else one trained on the corpus."""
    folder = out / "tokenizer"
    is_own = resume and (folder / "tokenizer.json").is_file()
    if is_own:
        tokenizer = Tokenizer.load(folder)
    elif config.tokenizer:
        tokenizer = Tokenizer.load(config.tokenizer)
    else:
        tokenizer = Tokenizer.train(store.texts(), shape.vocab_size)
    tokenizer.check_fits(shape.vocab_size)
    if not is_own:
        folder.mkdir(parents=True, exist_ok=True)
        DeepSeekTemplate().save(folder)
        tokenizer.save(folder)
    return tokenizer
