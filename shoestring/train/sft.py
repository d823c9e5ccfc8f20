"""Supervised fine-tuning, the second story: conversations, a trained model, steps, checkpoints, receipt."""

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch

from shoestring.data.conversations import ConversationBatch
from shoestring.device import Runtime, measure_peak
from shoestring.errors import ConfigError, MissingDependencyError, NonFiniteError, Stopped
from shoestring.model.cost import train_flops_per_token
from shoestring.model.lora import merge
from shoestring.model.transformer import Transformer
from shoestring.train import schedule
from shoestring.train.finish import Clock, keep_batch, mean_of, replace_folder, settle
from shoestring.train.losses import MicroBatch, summed_nll
from shoestring.train.report import curves, receipt
from shoestring.train.report.display import Display
from shoestring.train.report.energy import EnergyMeter
from shoestring.train.report.metrics import MetricsLog, read
from shoestring.train.sft_recipe import SFTConfig
from shoestring.train.sft_run import SFTRun, build, save, write_adapter, write_model
from shoestring.train.step import StepSettings, StepStats, train_step
from shoestring.train.stop import StopRequest

log = logging.getLogger(__name__)

Evaluate = Callable[[Transformer], Mapping[str, float]]
"""Figures of a model for its line in metrics.jsonl; asked every `eval_every` steps and at the end."""


def sft(
    config: SFTConfig,
    runtime: Runtime,
    out: Path,
    *,
    resume: bool = False,
    quiet: bool = False,
    on_eval: Evaluate | None = None,
) -> dict[str, Any]:
    """Fine-tune in folder `out` and return the report, which is also left there as report.json.

    `out/model` is the result in Hugging Face layout with tokenizer and chat template; after a LoRA run it is
    the merged model, and `out/adapter` the adapter. `resume` continues the newest whole checkpoint of `out`;
    on a CPU the final weights are those of an unbroken run, bit for bit. Raises Stopped (saved; resume
    later), NonFiniteError (the batch is kept), DataError naming file and line, and every error below.
    """
    if runtime.world_size > 1:  # each process would train alone and overwrite what the others save
        raise ConfigError(
            f"WORLD_SIZE = {runtime.world_size}: fine-tuning runs in one process; start just one"
        )
    files = ", ".join(Path(name).name for name in config.data)
    with Display(f"fine-tuning {config.model} on {files} -> {out.name}", 1, quiet=quiet) as early:
        run = build(config, runtime, out, resume=resume, say=early.say)
    with ExitStack() as stack:
        title = f"{run.name}: {len(run.order.numbers):,} conversations"
        display = stack.enter_context(Display(title, run.total_tokens, quiet=quiet))
        stop = stack.enter_context(StopRequest())
        peak, flops = measure_peak(runtime), _flops_per_token(run)
        metrics = stack.enter_context(MetricsLog(out / "metrics.jsonl", run.step if resume else None))
        clock = Clock(run.segments, stack.enter_context(EnergyMeter(watts=config.watts)))
        while run.tokens < run.total_tokens:
            start, before = time.perf_counter(), run.tokens
            row = _step(run)
            speed = (run.tokens - before) / (time.perf_counter() - start)
            row |= {"tokens_per_s": speed, "peak_share": speed * flops / peak}
            if run.step % config.eval_every == 0 or run.tokens >= run.total_tokens:
                row |= _scores(run, on_eval)
            metrics.log(run.step, row)
            display.update(row)
            if stop.wanted or run.step % config.save_every == 0:
                metrics.sync()
                save(run, clock.segments())
            if stop.wanted and run.tokens < run.total_tokens:
                raise Stopped(f"stopped at step {run.step:,} and saved; --resume --out {out} goes on")
        metrics.sync()
        save(run, clock.segments())
    return finish(run, clock.segments(), peak=peak, flops=flops * run.tokens, runtime=runtime)


def finish(
    run: SFTRun, segments: list[receipt.Segment], *, peak: float, flops: float, runtime: Runtime
) -> dict[str, Any]:
    """The final model (and adapter), the receipt, the curves and the report."""
    figures = summary(run)
    if run.config.lora.rank:
        replace_folder(run.out / "adapter", partial(write_adapter, run))
        merge(run.model)
    replace_folder(run.out / "model", partial(write_model, run))
    try:
        curves.draw(run.out / "metrics.jsonl", run.out / "curves.png", title=run.name)
    except MissingDependencyError as error:
        log.warning("the run has no picture of its curves: %s", error)
    paid = receipt.Receipt(
        data=run.manifest,
        recipe=asdict(run.config),
        seed=run.config.seed,
        tokens=run.tokens,
        train_flops=flops,
        machine=receipt.describe_machine(runtime.device.type, peak),
        price=run.config.price,
        segments=segments,
    )
    return settle(run.out, paid, figures, peak=peak)


def summary(run: SFTRun) -> dict[str, Any]:
    """The run in figures, from its own log and data."""
    rows = read(run.out / "metrics.jsonl")
    heldout = [row["heldout_bits_per_byte"] for row in rows if "heldout_bits_per_byte" in row]
    parameters = list(run.model.parameters())
    return {
        "start": run.config.model,
        "conversations": len(run.order.numbers),
        "heldout_conversations": len(run.heldout),
        "too_long": sum(file["too_long"] for file in run.manifest["files"]),
        "parameters_total": sum(p.numel() for p in parameters),
        "parameters_trained": sum(p.numel() for p in parameters if p.requires_grad),
        "steps": run.step,
        "tokens": run.tokens,
        "train_loss": mean_of(rows[-max(1, len(rows) // 20) :], "loss"),
        "train_loss_at_start": mean_of(rows[: max(1, len(rows) // 20)], "loss"),
        "heldout_bits_per_byte": heldout[-1] if heldout else None,
        "padding": mean_of(rows, "padding"),
    }


def _step(run: SFTRun) -> dict[str, Any]:
    """One update and its line for metrics.jsonl. What is left is divided evenly among the steps left."""
    config, progress = run.config, run.progress
    left = run.total_tokens - run.tokens
    steps_left = max(1, round(left / config.batch_tokens))
    wanted = schedule.batch_rows(progress, math.ceil(left / steps_left), config.schedule)
    numbers = run.order.take(wanted, last=steps_left == 1)
    batches = list(run.data.batches(numbers, config.micro_tokens))
    tokens = int(run.data.lengths[numbers].sum())
    reached = min((run.tokens + tokens) / run.total_tokens, 1.0)
    share = schedule.learning_rate_share(reached, config.schedule)
    settings = StepSettings(
        lr_share=share,
        mtp_weight=0.0 if config.lora.rank else schedule.mtp_weight(progress, config.schedule),
        bias_speed=schedule.bias_speed(progress, config.schedule),
        balance_alpha=config.balance_alpha,
        max_grad_norm=config.optim.max_grad_norm,
    )
    try:
        stats = train_step(
            run.model, run.optimizers, [_on_device(b, run.model.device) for b in batches], settings
        )
    except NonFiniteError as error:
        raise keep_batch(run.out, run.step, _tensors(batches), error) from None
    run.step, run.tokens = run.step + 1, run.tokens + tokens
    area = sum(batch.inputs.size for batch in batches)
    learned = sum(int(batch.learned.sum()) for batch in batches)
    rates = {"lr": config.optim.lr * share, "phase": schedule.phase(run.progress, config.schedule)}
    counts = {"batch": len(numbers), "learned_tokens": learned, "padding": 1 - tokens / area}
    return {"step": run.step, "tokens": run.tokens, **_losses(run, stats), **rates, **counts}


def _losses(run: SFTRun, stats: StepStats) -> dict[str, Any]:
    text_bytes = int(run.data.text_bytes.sum())
    learned = sum(file["learned_tokens"] for file in run.manifest["files"])
    bits = stats.nll / math.log(2) * learned / text_bytes if text_bytes else None
    return {
        "loss": stats.nll,
        "mtp_loss": stats.mtp_nll,
        "bits_per_byte": bits,
        "balance_loss": stats.balance,
        "grad_norm": stats.grad_norm,
        "max_violation": stats.max_violation,
    }


def _scores(run: SFTRun, on_eval: Evaluate | None) -> dict[str, float]:
    """Bits per byte of what the held-out conversations teach, and the caller's own figures."""
    scores: dict[str, float] = {}
    text_bytes = int(run.data.text_bytes[run.heldout].sum())
    if text_bytes:
        batches = run.data.batches(run.heldout, run.config.micro_tokens)
        nll = summed_nll(run.model, (_on_device(batch, run.model.device) for batch in batches))
        scores["heldout_bits_per_byte"] = nll / math.log(2) / text_bytes
    return scores | dict(on_eval(run.model) if on_eval else {})


def _flops_per_token(run: SFTRun) -> float:
    """Of a conversation of mean length; LoRA saves memory here, not work (model/lora.py)."""
    mean = max(1, round(float(run.order.lengths.mean())))
    mtp = not run.config.lora.rank and run.config.schedule.mtp_weight > 0
    return train_flops_per_token(run.model.config, mean, mtp=mtp)


def _on_device(batch: ConversationBatch, device: torch.device) -> MicroBatch:
    arrays = (batch.inputs, batch.targets, batch.learned)
    return MicroBatch(*(torch.from_numpy(array).to(device) for array in arrays))


def _tensors(batches: Sequence[ConversationBatch]) -> dict[str, torch.Tensor]:
    return {
        f"{index}.{name}": torch.from_numpy(getattr(batch, name))
        for index, batch in enumerate(batches)
        for name in ("inputs", "targets", "learned")
    }
