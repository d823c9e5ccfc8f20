"""Pretraining, the story: corpus, tokenizer, shards, model, steps, checkpoints, receipt."""

import logging
import math
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch

from shoestring.data.dataset import Dataset
from shoestring.data.loader import Batch
from shoestring.device import Runtime, measure_peak
from shoestring.errors import ConfigError, MissingDependencyError, NonFiniteError, Stopped
from shoestring.model.cost import parameters, train_flops_per_token
from shoestring.model.transformer import Transformer
from shoestring.train import schedule
from shoestring.train.finish import Clock, keep_batch, mean_of, replace_folder, settle
from shoestring.train.pretrain_recipe import PretrainConfig
from shoestring.train.pretrain_run import Run, build, model_config, save, write_model
from shoestring.train.report import curves, receipt
from shoestring.train.report.display import Display
from shoestring.train.report.energy import EnergyMeter
from shoestring.train.report.metrics import MetricsLog, read
from shoestring.train.step import StepSettings, StepStats, micro_batches, train_step
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
        clock = Clock(run.segments, meter)
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
    replace_folder(run.out / "model", partial(write_model, run))
    try:
        curves.draw(run.out / "metrics.jsonl", run.out / "curves.png", title=run.name)
    except MissingDependencyError as error:
        log.warning("the run has no picture of its curves: %s", error)
    paid = receipt.Receipt(
        data=run.dataset.manifest,
        recipe=asdict(run.config),
        seed=run.config.seed,
        tokens=run.tokens,
        train_flops=flops,
        machine=receipt.describe_machine(runtime.device.type, peak),
        price=run.config.price,
        segments=segments,
    )
    return settle(run.out, paid, summary(run), peak=peak)


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
        "train_loss": mean_of(last, "loss"),
        "heldout_bits_per_byte": heldout[-1] if heldout else None,
        "max_violation": mean_of(last, "max_violation"),
        "max_violation_at_start": mean_of(rows[: len(last)], "max_violation"),
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
        max_grad_norm=config.optim.max_grad_norm,
    )
    inputs, targets = (torch.from_numpy(ids).to(runtime.device) for ids in (batch.inputs, batch.targets))
    try:
        batches = micro_batches(inputs, targets, config.micro_batch_size)
        return train_step(run.model, run.optimizers, batches, settings)
    except NonFiniteError as error:
        raise keep_batch(run.out, run.step, {"inputs": inputs, "targets": targets}, error) from None


def _row(run: Run, stats: StepStats, rows: int) -> dict[str, Any]:
    """A line of metrics.jsonl, about the step that has just been taken."""
    return {
        "step": run.step,
        "tokens": run.tokens,
        "loss": stats.nll,
        "mtp_loss": stats.mtp_nll,
        "bits_per_byte": stats.nll / math.log(2) / run.bytes_per_token,
        "balance_loss": stats.balance,
        "grad_norm": stats.grad_norm,
        "max_violation": stats.max_violation,
        "violations": stats.violations,
        "lr": run.config.optim.lr * schedule.learning_rate_share(run.progress, run.config.schedule),
        "batch": rows,
        "phase": schedule.phase(run.progress, run.config.schedule),
    }
