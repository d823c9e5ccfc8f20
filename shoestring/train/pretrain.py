"""Pretraining of a model on a corpus, from random weights: its steps, evaluation and report."""

import math
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch

from shoestring.cost.step import Flops, added
from shoestring.data.dataset import Dataset
from shoestring.data.loader import Batch
from shoestring.device import Runtime, measure_peak
from shoestring.model.cost import parameters
from shoestring.model.transformer import Transformer
from shoestring.train import schedule
from shoestring.train.finish import draw_curves, mean_of, write_model_folder, write_report
from shoestring.train.loop import StepResult, train
from shoestring.train.parallel import Ranks, require_one_process
from shoestring.train.pretrain_recipe import PretrainConfig
from shoestring.train.pretrain_run import Run, build, model_config, save, write_model
from shoestring.train.report.display import Display
from shoestring.train.report.metrics import read
from shoestring.train.runs.crash import learning_from
from shoestring.train.runs.flops import learning_flops, method_of, update_flops
from shoestring.train.runs.lock import run_lock
from shoestring.train.step import StepSettings, StepStats, micro_batches, train_step

Evaluate = Callable[[Transformer, Dataset], float]
"""Held-out bits per byte of a model; passed in, since `evals` stands above `train`."""


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
    unbroken run, bit for bit. Raises Stopped (saved; resume later), NonFiniteError (the batch is kept),
    ConfigError and DataError for a recipe or a corpus that cannot be used.
    """
    require_one_process(runtime, "pretraining")
    model_config(config.model)  # a wrong name is refused before anything is shown
    title = f"{config.model} on {', '.join(config.data.sources)} -> {out.name}"
    with run_lock(out):
        with Display(title, config.total_tokens, quiet=quiet) as display:
            run = build(config, runtime, out, resume=resume, say=display.say)
            trainer = PretrainTrainer(run, runtime, on_eval)
            train(
                trainer,
                Ranks(runtime),
                resume=resume,
                save_every=config.save_every,
                eval_every=config.eval_every,
                show=display.update,
                watts=config.watts,
            )
        return trainer.finish()


class PretrainTrainer:
    """Steps, evaluations and the end of a pretraining run."""

    def __init__(self, run: Run, runtime: Runtime, on_eval: Evaluate | None = None) -> None:
        self.run, self.runtime, self.on_eval = run, runtime, on_eval
        self.peak = measure_peak(runtime)

    def take_step(self) -> StepResult:
        """Train on the next rows of the stream."""
        run, config, start = self.run, self.run.config, time.perf_counter()
        rows = schedule.batch_rows(run.progress, config.batch_size, config.schedule)
        stats, flops = self._train_on(run.loader.next_batch(rows))
        tokens = rows * config.seq_len
        run.step, run.tokens, run.flops = run.step + 1, run.tokens + tokens, added(run.flops, flops)
        seconds = time.perf_counter() - start
        flops_per_s = sum(flops.values()) / seconds
        self.peak = max(self.peak, flops_per_s)  # it was measured beside other work
        row = _row(run, stats, rows) | {
            "tokens_per_s": tokens / seconds,
            "peak_share": flops_per_s / self.peak,
        }
        return StepResult(row=row, display={"expert_load": stats.worst_load})

    def evaluate(self) -> Mapping[str, Any]:
        """Bits per byte of the held-out text."""
        if self.on_eval is None:
            return {}
        return {"heldout_bits_per_byte": self.on_eval(self.run.model, self.run.dataset)}

    def save(self) -> None:
        save(self.run)

    def finish(self) -> dict[str, Any]:
        """Leave the final model, curves, receipt and report; returns the report."""
        run = self.run
        write_model_folder(run.out / "model", partial(write_model, run))
        draw_curves(run)
        data = run.dataset.manifest
        return write_report(run, self.runtime, summary(run), data=data, peak=self.peak)

    def _train_on(self, batch: Batch) -> tuple[StepStats, Flops]:
        """Learn from a batch; returns the step's figures and its FLOPs."""
        run, device = self.run, self.runtime.device
        inputs, targets = (torch.from_numpy(ids).to(device) for ids in (batch.inputs, batch.targets))
        batches = micro_batches(inputs, targets, run.config.micro_batch_size)
        settings = step_settings(run, inputs.numel())
        with learning_from(lambda: {"inputs": inputs, "targets": targets}):
            stats = train_step(run.model, run.optimizers, batches, settings)
        depths = run.model.config.num_nextn_predict_layers if settings.mtp_weight else 0
        flops = learning_flops(run.model.config, batches, method_of(run.config), depths)
        return stats, flops | update_flops(run.optimizers)


def step_settings(run: Run, tokens: int) -> StepSettings:
    """Values of the schedule for a step of so many tokens; the learning rate is read where it ends."""
    config, progress = run.config, run.progress
    progress_after = min((run.tokens + tokens) / config.total_tokens, 1.0)
    return StepSettings(
        lr_share=schedule.learning_rate_share(progress_after, config.schedule),
        mtp_weight=schedule.mtp_weight(progress, config.schedule),
        bias_speed=schedule.bias_speed(progress, config.schedule),
        balance_alpha=config.balance_alpha,
        max_grad_norm=config.optim.max_grad_norm,
    )


def summary(run: Run) -> dict[str, Any]:
    """Figures of the run, from its own log."""
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


def _row(run: Run, stats: StepStats, rows: int) -> dict[str, Any]:
    """The line of metrics.jsonl about the latest step."""
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
