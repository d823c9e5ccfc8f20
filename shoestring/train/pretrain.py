"""Pretraining, the story: corpus, tokenizer, shards, model, steps, checkpoints, receipt."""

import json
import logging
import math
import shutil
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from shoestring.data.dataset import Dataset
from shoestring.data.loader import Batch
from shoestring.device import Runtime, measure_peak
from shoestring.durable import write_atomic
from shoestring.errors import ConfigError, MissingDependencyError, NonFiniteError, Stopped
from shoestring.model.cost import parameters, train_flops_per_token
from shoestring.model.transformer import Transformer
from shoestring.train import curves, receipt, schedule, state
from shoestring.train.display import Display
from shoestring.train.energy import EnergyMeter
from shoestring.train.metrics import MetricsLog, read
from shoestring.train.recipe import PretrainConfig
from shoestring.train.run import Run, build, model_config, save, write_model
from shoestring.train.step import StepSettings, StepStats, train_step
from shoestring.train.stop import StopRequest

log = logging.getLogger(__name__)

Evaluate = Callable[[Transformer, Dataset], float]
"""Held-out bits per byte of a model; given by whoever calls, since `evals` stands above `train`."""


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
    model_config(config.model)  # a wrong name is refused before anything is shown
    title = f"{config.model} on {', '.join(config.data.sources)} -> {out.name}"
    with ExitStack() as stack:
        display = stack.enter_context(Display(title, config.total_tokens, quiet=quiet))
        run = build(config, runtime, out, resume=resume, say=display.say)
        peak = measure_peak(runtime)
        flops = train_flops_per_token(run.model.config, config.seq_len)
        metrics = stack.enter_context(MetricsLog(out / "metrics.jsonl", run.step if resume else None))
        stop = stack.enter_context(StopRequest())
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
        curves.draw(run.out / "metrics.jsonl", run.out / "curves.png", title=run.name)
    except MissingDependencyError as error:
        log.warning("the run has no picture of its curves: %s", error)
    report = summary(run) | {
        "train_flops": flops,
        "seconds": bill["seconds"],
        "achieved_peak_share": flops / bill["seconds"] / peak if bill["seconds"] else None,
        "energy": bill["energy"],
        "money": bill["money"],
    }
    write_atomic(run.out / "report.json", json.dumps(report, indent=2) + "\n")
    return report


def _write_model(run: Run) -> None:
    """The final model as `out/model`, replacing one that an earlier finish left."""
    fresh, final = run.out / "model.tmp", run.out / "model"
    shutil.rmtree(fresh, ignore_errors=True)
    write_model(run, fresh)
    shutil.rmtree(final, ignore_errors=True)
    fresh.rename(final)


def summary(run: Run) -> dict[str, Any]:
    """The run in figures, from its own log."""
    rows = read(run.out / "metrics.jsonl")
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
