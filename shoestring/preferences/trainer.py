"""Steps, evaluations and the end of a run that learns from preferences, whatever its objective."""

import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch

from shoestring.cost.step import added
from shoestring.device import Runtime, measure_peak
from shoestring.model.packed.frozen import num_packed
from shoestring.preferences.outcome import Judge, Outcome, figures
from shoestring.preferences.run import ComparisonRun, save, write_model
from shoestring.train.finish import draw_curves, mean_of, write_report
from shoestring.train.loop import StepResult
from shoestring.train.report.metrics import read
from shoestring.train.runs.crash import learning_from
from shoestring.train.runs.flops import update_flops
from shoestring.train.schedule import warmup_cosine_share
from shoestring.train.step import clip_and_step
from shoestring.train.tuning import write_result

FIGURES = ("loss", "rewards/accuracies", "rewards/margins")
"""Figures of the report, at the run's start and its end."""


class ComparisonTrainer:
    """Trains a run's model by the outcomes that `judge` gives."""

    def __init__(self, run: ComparisonRun, runtime: Runtime, judge: Judge) -> None:
        self.run, self.runtime, self.judge = run, runtime, judge
        self.peak = measure_peak(runtime)

    def take_step(self) -> StepResult:
        """Learn from the next pairs, or answers."""
        run, config = self.run, self.run.config
        heldout = {} if run.step else self._heldout()
        before = {f"{name}_at_start": value for name, value in heldout.items()}
        start = time.perf_counter()
        units, lr_share, before_flops = run.batches.of_step(run.step), self._lr_share(), _total(run.flops)
        with learning_from(lambda: self._named_tensors(units)):
            row = self._learn(units, lr_share)
        tokens = run.data.tokens(units)
        run.step, run.tokens = run.step + 1, run.tokens + tokens
        seconds = time.perf_counter() - start
        flops_per_s = (_total(run.flops) - before_flops) / seconds
        self.peak = max(self.peak, flops_per_s)  # it was measured beside other work
        row |= {
            "tokens": run.tokens,
            "lr": config.optim.lr * lr_share,
            "batch": len(units),
            "tokens_per_s": tokens / seconds,
            "peak_share": flops_per_s / self.peak,
        }
        eta_s = (run.total_steps - run.step) * (time.perf_counter() - start)
        return StepResult(row=before | {"step": run.step} | row, display={"eta_s": eta_s})

    def evaluate(self) -> Mapping[str, Any]:
        """Figures of the held-out preferences: their loss, and the share that is in the right order."""
        return self._heldout()

    def save(self) -> None:
        save(self.run)

    def finish(self) -> dict[str, Any]:
        """Leave the final model (and adapter), curves, receipt and report; returns the report."""
        run = self.run
        report = summary(run)
        write_result(run, partial(write_model, run))
        draw_curves(run)
        return write_report(run, self.runtime, report, data=run.manifest, peak=self.peak)

    def _learn(self, units: Sequence[int], lr_share: float) -> dict[str, Any]:
        """Update the model on the units of a step; returns their figures from before."""
        run, parts = self.run, list[Outcome]()
        run.optimizers.zero_grad()
        for outcome in self.judge(units):
            loss = outcome.loss_B.sum() / len(units)
            loss.backward()
            parts.append(outcome)
        row = figures(parts)
        max_grad_norm = run.config.optim.max_grad_norm
        grad_norm = clip_and_step(
            run.model, run.optimizers, row["loss"], max_grad_norm=max_grad_norm, lr_share=lr_share
        )
        run.flops = added(run.flops, *(part.flops for part in parts), update_flops(run.optimizers))
        return row | {"grad_norm": grad_norm}

    def _lr_share(self) -> float:
        run, config = self.run, self.run.config
        warmup_steps = round(config.warmup_ratio * run.total_steps)
        return warmup_cosine_share(
            run.step, steps=run.total_steps, warmup_steps=warmup_steps, min_ratio=config.min_lr_ratio
        )

    @torch.no_grad()
    def _heldout(self) -> dict[str, Any]:
        parts = [outcome for units in self.run.heldout_batches for outcome in self.judge(units)]
        return {f"heldout_{name}": value for name, value in figures(parts).items()} if parts else {}

    def _named_tensors(self, units: Sequence[int]) -> dict[str, torch.Tensor]:
        """Tensors of the step with names for a file."""
        data = self.run.data
        answers = [(number, data.answers[number]) for unit in units for number in data.units[unit]]
        ids = {f"{number}.ids": torch.from_numpy(answer.ids) for number, answer in answers}
        return ids | {f"{number}.loss_mask": torch.from_numpy(answer.loss_mask) for number, answer in answers}


def _total(flops: Mapping[str, float]) -> float:
    return sum(flops.values())


def summary(run: ComparisonRun) -> dict[str, Any]:
    """Figures of the run, from its own log and data."""
    rows = read(run.out / "metrics.jsonl")
    part = max(1, len(rows) // 20)
    parameters = list(run.model.parameters())
    report: dict[str, Any] = {
        "start": run.config.model,
        "loss_type": run.config.loss_type,
        "preferences": len(run.data) - len(run.heldout),
        "heldout_preferences": len(run.heldout),
        "too_long": sum(file["too_long"] for file in run.manifest["files"]),
        "parameters_total": sum(p.numel() for p in parameters) + num_packed(run.model),
        "parameters_trained": sum(p.numel() for p in parameters if p.requires_grad),
        "steps": run.step,
        "tokens": run.tokens,
    }
    for name in FIGURES:
        report[f"train_{name}"] = mean_of(rows[-part:], name)
        report[f"train_{name}_at_start"] = mean_of(rows[:part], name)
    for name in (f"heldout_{name}" for name in FIGURES):
        values = [row[name] for row in rows if name in row]
        report[name] = values[-1] if values else None
        report[f"{name}_at_start"] = rows[0].get(f"{name}_at_start") if rows else None
    return report
