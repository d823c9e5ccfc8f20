"""Pretraining, the story: corpus, tokenizer, shards, model, steps, checkpoints, receipt."""

import json
import logging
import math
import os
import shutil
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from shoestring import config as configs
from shoestring.data.dataset import Dataset, prepare
from shoestring.data.loader import Batch, Loader
from shoestring.data.textstore import documents
from shoestring.device import Runtime, measure_peak
from shoestring.errors import CheckpointError, ConfigError, MissingDependencyError, NonFiniteError, Stopped
from shoestring.model.config import ModelConfig
from shoestring.model.cost import train_flops_per_token
from shoestring.model.folder import save_model
from shoestring.model.hf_config import load_config
from shoestring.model.presets import PRESETS
from shoestring.model.transformer import Transformer, initialise
from shoestring.model.weights import load_weights
from shoestring.tokenizer.bpe import Tokenizer
from shoestring.tokenizer.chat_deepseek import DeepSeekTemplate
from shoestring.train import checkpoint, curves, receipt, schedule, state
from shoestring.train.display import Display
from shoestring.train.durable import write_atomic
from shoestring.train.energy import EnergyMeter
from shoestring.train.metrics import MetricsLog
from shoestring.train.optim import Optimizers, build_optimizers
from shoestring.train.recipe import PretrainConfig
from shoestring.train.step import StepSettings, StepStats, train_step
from shoestring.train.stop import StopRequest

log = logging.getLogger(__name__)

Evaluate = Callable[[Transformer, Dataset], float]
"""Held-out bits per byte of a model; given by whoever calls, since `evals` stands above `train`."""


@dataclass
class Run:
    """Everything that a checkpoint restores, and what it is made of."""

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
    segments: list[receipt.Segment] = field(default_factory=list)

    @property
    def progress(self) -> float:
        return min(self.tokens / self.config.total_tokens, 1.0)


def pretrain(
    config: PretrainConfig,
    runtime: Runtime,
    out: Path,
    *,
    resume: bool = False,
    quiet: bool = False,
    on_eval: Evaluate | None = None,
) -> dict[str, Any]:
    """Train in folder `out` and return the report, which is also left there as report.json.

    `resume` continues the newest whole checkpoint of `out`; on a CPU the final weights are those of an
    unbroken run, bit for bit. Raises Stopped (saved; resume later), NonFiniteError (the batch is kept), and
    every error of the rooms below.
    """
    if runtime.world_size > 1:  # each process would train alone and overwrite what the others save
        raise ConfigError(
            f"WORLD_SIZE = {runtime.world_size}: pretraining runs in one process; start just one"
        )
    run = build(config, runtime, out, resume=resume)
    peak = measure_peak(runtime)
    flops = train_flops_per_token(run.model.config, config.seq_len)
    title = f"{config.model} on {', '.join(config.data.sources)} -> {out.name}"
    with ExitStack() as stack:
        metrics = stack.enter_context(MetricsLog(out / "metrics.jsonl", run.step if resume else None))
        stop = stack.enter_context(StopRequest())
        display = stack.enter_context(Display(title, config.total_tokens, quiet=quiet))
        meter = stack.enter_context(EnergyMeter(watts=config.watts))
        clock = _Clock(run, meter)
        while run.tokens < config.total_tokens:
            start, progress = time.perf_counter(), run.progress
            rows = schedule.batch_rows(progress, config.batch_size, config.schedule)
            stats = _checked_step(run, run.loader.next_batch(rows), progress, runtime)
            run.step, run.tokens = run.step + 1, run.tokens + rows * config.seq_len
            row = _row(run, stats, rows)
            speed = rows * config.seq_len / (time.perf_counter() - start)
            if on_eval and (run.step % config.eval_every == 0 or run.tokens >= config.total_tokens):
                row["heldout_bits_per_byte"] = on_eval(run.model, run.dataset)
            metrics.log(run.step, row | {"tokens_per_s": speed, "peak_share": speed * flops / peak})
            shown = {"tokens_per_s": speed, "peak_share": speed * flops / peak}
            display.update(row | shown | {"expert_load": stats.worst_load})
            if stop.wanted or run.step % config.save_every == 0:
                metrics.sync()
                save(run, clock.segments())
            if stop.wanted and run.tokens < config.total_tokens:
                raise Stopped(f"stopped at step {run.step:,} and saved; --resume --out {out} goes on")
        metrics.sync()
        save(run, clock.segments())
    return finish(run, clock.segments(), peak=peak, flops=flops * run.tokens, runtime=runtime)


def build(config: PretrainConfig, runtime: Runtime, out: Path, *, resume: bool) -> Run:
    """The run at its start, or where its newest checkpoint left it."""
    shape = model_config(config.model)
    if config.seq_len > shape.max_position_embeddings:
        raise ConfigError(
            f"seq_len = {config.seq_len}, but {config.model} has max_position_embeddings = "
            f"{shape.max_position_embeddings}; lower seq_len"
        )
    if not resume and (out / "checkpoints").exists():
        raise ConfigError(f"{out} already holds a run; --resume continues it, another --out starts anew")
    if not resume:
        write_atomic(out / "config.toml", configs.dumps(config).encode())
    tokenizer = _tokenizer(config, shape, out, resume=resume)
    dataset = prepare(config.data, tokenizer, cache_folder())
    special = {"bos_token_id": tokenizer.bos_id, "eos_token_id": tokenizer.eos_id}
    shape = replace(shape, **special, pad_token_id=tokenizer.pad_id)  # type: ignore[arg-type]
    model = Transformer(shape, runtime.compute_dtype).to(runtime.device)
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
        model=initialise(model, generator).train(),
        optimizers=build_optimizers(model, config.optim),
        loader=loader,
        bytes_per_token=float(dataset.train.document_bytes.sum()) / max(len(dataset.train.ids), 1),
    )
    if resume:
        restore(run)
        # Not sooner: a recipe that does not fit must not replace the one that the run was made with.
        write_atomic(out / "config.toml", configs.dumps(config).encode())
    write_atomic(out / "data.json", json.dumps(dataset.manifest, indent=1).encode())
    return run


def save(run: Run, segments: list[receipt.Segment]) -> Path:
    """A checkpoint in Hugging Face layout, with the trainer's state beside it."""

    def write(folder: Path) -> None:
        save_model(run.model, folder, tokenizer_files=run.out / "tokenizer", lineage=lineage(run))
        tensors, optimizer = state.flatten(run.optimizers.state_dict())
        values = {
            "step": run.step,
            "tokens": run.tokens,
            "loader": run.loader.state(),
            "optimizer": optimizer,
            "segments": [asdict(segment) for segment in segments],
        }
        state.save_state(folder / "trainer", tensors, values)

    return checkpoint.save(run.out / "checkpoints", run.step, write)


def restore(run: Run) -> None:
    """Continue from the newest whole checkpoint; with none yet, from the start."""
    folder = checkpoint.latest(run.out / "checkpoints")
    if folder is None:
        log.warning("%s holds no checkpoint yet: the run starts from its beginning", run.out)
        return
    saved = load_config(folder)
    if saved != run.model.config:
        raise CheckpointError(f"{folder} holds another model shape than the recipe; use the run's own recipe")
    load_weights(run.model, folder, dtype=torch.float32, device=run.model.device)
    tensors, values = state.load_state(folder / "trainer")
    run.optimizers.load_state_dict(state.unflatten(tensors, values["optimizer"]))
    run.loader.load_state(values["loader"])
    run.step, run.tokens = values["step"], values["tokens"]
    run.segments = [receipt.Segment.of(segment) for segment in values["segments"]]


def finish(
    run: Run, segments: list[receipt.Segment], *, peak: float, flops: float, runtime: Runtime
) -> dict[str, Any]:
    """The final model, the receipt, the curves and the report."""
    _write_model(run)
    machine = receipt.describe_machine(runtime.device.type, peak)
    bill = receipt.write(
        receipt.Receipt(
            data=run.dataset.manifest,
            recipe=asdict(run.config),
            seed=run.config.seed,
            tokens=run.tokens,
            train_flops=flops,
            machine=machine,
            price=run.config.price,
            segments=segments,
        ),
        run.out / "receipt.json",
    )
    try:
        title = f"{run.config.model}: {run.out.name}"
        curves.draw(run.out / "metrics.jsonl", run.out / "curves.png", title=title)
    except MissingDependencyError as error:
        log.warning("the run has no picture of its curves: %s", error)
    report = summary(run) | {
        "train_flops": flops,
        "seconds": bill["seconds"],
        "achieved_peak_share": flops / bill["seconds"] / peak if bill["seconds"] else None,
        "energy": bill["energy"],
        "money": bill["money"],
    }
    write_atomic(run.out / "report.json", (json.dumps(report, indent=2) + "\n").encode())
    return report


def _write_model(run: Run) -> None:
    """The final model as `out/model`, replacing one that an earlier finish left."""
    fresh, final = run.out / "model.tmp", run.out / "model"
    shutil.rmtree(fresh, ignore_errors=True)
    save_model(run.model, fresh, tokenizer_files=run.out / "tokenizer", lineage=lineage(run))
    shutil.rmtree(final, ignore_errors=True)
    fresh.rename(final)


def summary(run: Run) -> dict[str, Any]:
    """The run in figures, from its own log."""
    from shoestring.model.cost import parameters
    from shoestring.train import metrics

    rows = metrics.read(run.out / "metrics.jsonl")
    heldout = [row["heldout_bits_per_byte"] for row in rows if "heldout_bits_per_byte" in row]
    count = parameters(run.model.config)
    last = rows[-max(1, len(rows) // 20) :]
    return {
        "model": run.config.model,
        "parameters_total": count.total,
        "parameters_active": count.active,
        "parameters_mtp": count.mtp,
        "steps": run.step,
        "tokens": run.tokens,
        "train_loss": _mean_of(last, "loss"),
        "heldout_bits_per_byte": heldout[-1] if heldout else None,
        "max_violation": _mean_of(last, "max_violation"),
        "max_violation_at_start": _mean_of(rows[: len(last)], "max_violation"),
    }


def measure_speed(config: PretrainConfig, runtime: Runtime, steps: int = 4) -> float:
    """Tokens per second of the recipe's full-size steps here, on random ids; the best of `steps`."""
    shape = model_config(config.model)
    model = initialise(
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
    best = float("inf")
    for _ in range(steps):
        start = time.perf_counter()
        train_step(model, optimizers, ids[:, :-1], ids[:, 1:], settings)
        best = min(best, time.perf_counter() - start)
    return config.batch_size * config.seq_len / best


def model_config(name: str) -> ModelConfig:
    """A preset, or the config.json of a folder."""
    if name in PRESETS:
        return PRESETS[name]
    if (Path(name) / "config.json").is_file():
        return load_config(Path(name))
    raise ConfigError(
        f"model = {name!r} is neither a folder with a config.json nor one of {', '.join(PRESETS)}"
    )


def cache_folder() -> Path:
    """Where prepared texts and shards are kept between runs: they are keyed by content."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "shoestring" / "data"


def lineage(run: Run) -> str:
    """The model card's word on where the weights come from."""
    return (
        f"Trained from random weights by `shoestring pretrain` for {run.tokens:,} tokens of "
        f"{', '.join(run.config.data.sources)} (seed {run.config.seed}). "
        "It completes text; it follows no instructions."
    )


def _tokenizer(config: PretrainConfig, shape: ModelConfig, out: Path, *, resume: bool) -> Tokenizer:
    """The run's own tokenizer when resuming, else the recipe's, else one trained on the corpus."""
    folder = out / "tokenizer"
    own = resume and (folder / "tokenizer.json").is_file()
    if own:
        tokenizer = Tokenizer.load(folder)
    elif config.tokenizer:
        tokenizer = Tokenizer.load(config.tokenizer)
    else:
        tokenizer = Tokenizer.train(documents(config.data, cache_folder()).texts(), shape.vocab_size)
    tokenizer.check_fits(shape.vocab_size)
    if not own:
        folder.mkdir(parents=True, exist_ok=True)
        DeepSeekTemplate().save(folder)
        tokenizer.save(folder)
    return tokenizer


def _checked_step(run: Run, batch: Batch, progress: float, runtime: Runtime) -> StepStats:
    """train_step on the batch; a batch that breaks it is kept for inspection."""
    config = run.config
    reached = min((run.tokens + batch.inputs.size) / config.total_tokens, 1.0)
    settings = StepSettings(
        lr_share=schedule.learning_rate_share(reached, config.schedule),
        mtp_weight=schedule.mtp_weight(progress, config.schedule),
        bias_speed=schedule.bias_speed(progress, config.schedule),
        balance_alpha=config.balance_alpha,
        clip=config.optim.clip,
        micro_rows=config.micro_batch_size,
    )
    inputs, targets = (torch.from_numpy(ids).to(runtime.device) for ids in (batch.inputs, batch.targets))
    try:
        return train_step(run.model, run.optimizers, inputs, targets, settings)
    except NonFiniteError as error:
        kept = {"inputs": inputs, "targets": targets}
        state.save_state(run.out / "nonfinite-batch", kept, {"step": run.step, "error": str(error)})
        raise NonFiniteError(
            f"step {run.step + 1}: {error}; nothing was updated, the batch is in "
            f"{run.out / 'nonfinite-batch.safetensors'}; "
            f"lower optim.lr in {run.out / 'config.toml'} and --resume"
        ) from None


def _row(run: Run, stats: StepStats, rows: int) -> dict[str, Any]:
    """A line of metrics.jsonl, about the step that has just been taken."""
    violation = sum(stats.violations) / len(stats.violations) if stats.violations else None
    return {
        "step": run.step,
        "tokens": run.tokens,
        "loss": stats.nll,
        "mtp_loss": stats.mtp_nll,
        "bits_per_byte": stats.nll / math.log(2) / run.bytes_per_token,
        "balance_loss": stats.balance,
        "grad_norm": stats.grad_norm,
        "max_violation": violation,
        "violations": stats.violations,
        "lr": run.config.optim.lr * schedule.learning_rate_share(run.progress, run.config.schedule),
        "batch": rows,
        "phase": schedule.phase(run.progress, run.config.schedule),
    }


def _mean_of(rows: list[dict[str, Any]], key: str) -> float | None:
    values = [row[key] for row in rows if row.get(key) is not None]
    return sum(values) / len(values) if values else None


class _Clock:
    """The run's earlier segments and the one now running."""

    def __init__(self, run: Run, meter: EnergyMeter) -> None:
        self._earlier, self._meter = list(run.segments), meter
        self._began, self._start = receipt.utc_now(), time.monotonic()

    def segments(self) -> list[receipt.Segment]:
        now = receipt.Segment(
            start=self._began,
            end=receipt.utc_now(),
            seconds=time.monotonic() - self._start,
            energy=self._meter.read(),
        )
        return [*self._earlier, now]
