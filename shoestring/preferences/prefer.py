"""Learning from preferences (DPO, IPO, SimPO, KTO, ORPO): a whole run, from its recipe to its report."""

import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from shoestring.device import Runtime, measure_peak
from shoestring.model.cost import train_flops_per_token
from shoestring.preferences.logps import mismatched_logprobs
from shoestring.preferences.losses import kl_estimate
from shoestring.preferences.recipe import PreferenceConfig
from shoestring.preferences.run import PreferenceRun, build, heldout_batches, save, write_model
from shoestring.preferences.step import Outcome, Totals, figures, judge
from shoestring.train.finish import draw_curves, mean_of, write_report
from shoestring.train.loop import StepResult, train
from shoestring.train.parallel import Ranks, require_one_process
from shoestring.train.report.display import Display
from shoestring.train.report.metrics import read
from shoestring.train.runs.crash import learning_from
from shoestring.train.runs.lock import run_lock
from shoestring.train.schedule import warmup_cosine_share
from shoestring.train.step import clip_and_step
from shoestring.train.tuning import write_result


def prefer(
    config: PreferenceConfig, runtime: Runtime, out: Path, *, resume: bool = False, quiet: bool = False
) -> dict[str, Any]:
    """Train on preferences in folder `out` and return the report, which is also left there as report.json.

    `out/model` is the result in Hugging Face layout with tokenizer and chat template; after a LoRA run it is
    the merged model, and `out/adapter` the adapter. `resume` continues the newest whole checkpoint of `out`;
    on a CPU the final weights are those of an unbroken run, bit for bit. Raises Stopped (saved; resume
    later), NonFiniteError (the batch is kept), DataError naming file and line, ConfigError, CheckpointError.
    """
    require_one_process(runtime, "learning from preferences")
    files = ", ".join(Path(name).name for name in config.data)
    title = f"{config.loss.loss_type}: {config.model} on {files} -> {out.name}"
    with run_lock(out):
        with Display(title, 1, quiet=quiet) as display:
            run = build(config, runtime, out, resume=resume, say=display.say)
        title = f"{run.name}: {len(run.data) - len(run.heldout):,} preferences"
        with Display(title, run.total_steps, unit="steps", quiet=quiet) as display:
            trainer = PreferenceTrainer(run, runtime)
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


class PreferenceTrainer:
    """Steps, evaluations and the end of a run of learning from preferences."""

    def __init__(self, run: PreferenceRun, runtime: Runtime) -> None:
        self.run, self.runtime = run, runtime
        self.peak = measure_peak(runtime)
        lengths = [len(answer.ids) for answer in run.data.answers]
        mean = max(1, round(sum(lengths) / len(lengths)))
        share = 2 / 3 if run.config.lora.rank else 1.0  # LoRA makes no gradient of the base
        self.flops_per_token = share * train_flops_per_token(run.model.config, mean, mtp=False)

    def take_step(self) -> StepResult:
        """Learn from the next pairs, or answers."""
        run, config = self.run, self.run.config
        before = (
            {f"{name}_at_start": value for name, value in self._heldout().items()} if not run.step else {}
        )
        start = time.perf_counter()
        units = run.batches.of_step(run.step)
        lr_share = self._lr_share()
        totals = self._totals(units)
        parts: list[Outcome] = []
        run.optimizers.zero_grad()
        with learning_from(lambda: self._named_tensors(units)):
            for batch in run.data.batches(units, config.micro_tokens, run.model.device):
                parts.append(judge(run.model, batch, self._reference_logp, config.loss, totals))
                loss = parts[-1].loss_B.sum() / totals.units
                loss.backward()
            row = figures(parts)
            grad_norm = clip_and_step(
                run.model,
                run.optimizers,
                row["loss"],
                max_grad_norm=config.optim.max_grad_norm,
                lr_share=lr_share,
            )
        tokens = run.data.tokens(units)
        run.step, run.tokens = run.step + 1, run.tokens + tokens
        speed = tokens / (time.perf_counter() - start)
        self.peak = max(self.peak, speed * self.flops_per_token)  # it was measured beside other work
        row |= {"kl": float(totals.kl)} if config.loss.loss_type == "kto" else {}
        row |= {
            "tokens": run.tokens,
            "grad_norm": grad_norm,
            "lr": config.optim.lr * lr_share,
            "batch": len(units),
            "tokens_per_s": speed,
            "peak_share": speed * self.flops_per_token / self.peak,
        }
        return StepResult(row=before | {"step": run.step} | row)

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
        flops = self.flops_per_token * run.tokens
        return write_report(run, self.runtime, report, data=run.manifest, train_flops=flops, peak=self.peak)

    @property
    def _reference_logp(self) -> torch.Tensor:
        return torch.empty(0) if self.run.reference is None else self.run.reference.logp

    def _lr_share(self) -> float:
        run, config = self.run, self.run.config
        warmup_steps = round(config.warmup_ratio * run.total_steps)
        return warmup_cosine_share(
            run.step, steps=run.total_steps, warmup_steps=warmup_steps, min_ratio=config.min_lr_ratio
        )

    def _totals(self, units: Sequence[int]) -> Totals:
        run = self.run
        kl = torch.zeros((), device=run.model.device)
        if run.config.loss.loss_type == "kto":
            assert run.reference is not None
            logp_B = mismatched_logprobs(run.model, run.data, units, run.config.micro_tokens)
            kl = kl_estimate(logp_B - run.reference.mismatched_logp[list(units)].to(logp_B.device))
        chosen = [run.data.answers[run.data.units[unit][0]] for unit in units]
        mean_tokens = sum(int(answer.loss_mask.sum()) for answer in chosen) / len(chosen)
        return Totals(units=len(units), mean_tokens=mean_tokens, kl=kl)

    @torch.no_grad()
    def _heldout(self) -> dict[str, Any]:
        run, config = self.run, self.run.config
        parts: list[Outcome] = []
        for units in heldout_batches(run):
            totals = self._totals(units)
            parts += [
                judge(run.model, batch, self._reference_logp, config.loss, totals)
                for batch in run.data.batches(units, config.micro_tokens, run.model.device)
            ]
        return {f"heldout_{name}": value for name, value in figures(parts).items()} if parts else {}

    def _named_tensors(self, units: Sequence[int]) -> dict[str, torch.Tensor]:
        """Tensors of the step with names for a file."""
        data = self.run.data
        answers = [(number, data.answers[number]) for unit in units for number in data.units[unit]]
        ids = {f"{number}.ids": torch.from_numpy(answer.ids) for number, answer in answers}
        return ids | {f"{number}.loss_mask": torch.from_numpy(answer.loss_mask) for number, answer in answers}


def summary(run: PreferenceRun) -> dict[str, Any]:
    """Figures of the run, from its own log and data."""
    rows = read(run.out / "metrics.jsonl")
    part = max(1, len(rows) // 20)
    parameters = list(run.model.parameters())
    report: dict[str, Any] = {
        "start": run.config.model,
        "loss_type": run.config.loss.loss_type,
        "preferences": len(run.data) - len(run.heldout),
        "heldout_preferences": len(run.heldout),
        "too_long": sum(file["too_long"] for file in run.manifest["files"]),
        "parameters_total": sum(p.numel() for p in parameters),
        "parameters_trained": sum(p.numel() for p in parameters if p.requires_grad),
        "steps": run.step,
        "tokens": run.tokens,
    }
    for name in ("loss", "rewards/accuracies", "rewards/margins"):
        report[f"train_{name}"] = mean_of(rows[-part:], name)
        report[f"train_{name}_at_start"] = mean_of(rows[:part], name)
    for name in ("heldout_loss", "heldout_rewards/accuracies", "heldout_rewards/margins"):
        values = [row[name] for row in rows if name in row]
        report[name] = values[-1] if values else None
        report[f"{name}_at_start"] = rows[0].get(f"{name}_at_start") if rows else None
    return report
