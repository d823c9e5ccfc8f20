"""Supervised fine-tuning of a model on conversations: its steps, evaluation and report."""

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from shoestring.cost.step import Flops, added
from shoestring.data.chat.mixture import sources
from shoestring.data.conversations import ConversationBatch
from shoestring.device import Runtime, measure_peak
from shoestring.model.packed.frozen import num_packed
from shoestring.model.transformer import Transformer
from shoestring.train import schedule
from shoestring.train.finish import draw_curves, mean_of, write_report
from shoestring.train.loop import StepResult, train
from shoestring.train.losses import MicroBatch, summed_nll
from shoestring.train.parallel import Ranks, require_one_process
from shoestring.train.report.display import Display
from shoestring.train.report.metrics import read
from shoestring.train.runs.crash import learning_from
from shoestring.train.runs.flops import learning_flops, method_of, update_flops
from shoestring.train.runs.lock import run_lock
from shoestring.train.sft_recipe import SFTConfig
from shoestring.train.sft_run import SFTRun, build, judge, load_best, save, write_model
from shoestring.train.step import StepSettings, StepStats, train_step
from shoestring.train.tuning import write_result

LEFT_OUT = ("too_long", "shortened", "unlearned", "bad_rows")
"""Reasons why conversations are not learned whole, as each file of the manifest counts them."""

Evaluate = Callable[[Transformer], Mapping[str, float]]
"""Figures of a model for its line in metrics.jsonl, every `eval_every` steps and at the end."""


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
    later), NonFiniteError (the batch is kept), DataError naming file and line, ConfigError, CheckpointError.
    """
    require_one_process(runtime, "fine-tuning")
    files = ", ".join(Path(source.path).name for source in sources(config.data))
    with run_lock(out):
        with Display(f"fine-tuning {config.model} on {files} -> {out.name}", 1, quiet=quiet) as display:
            run = build(config, runtime, out, resume=resume, say=display.say)
        title = f"{run.name}: {len(run.order.numbers):,} conversations"
        with Display(title, run.total_tokens, quiet=quiet) as display:
            trainer = SFTTrainer(run, runtime, on_eval)
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


class SFTTrainer:
    """Steps, evaluations and the end of a fine-tuning run."""

    def __init__(self, run: SFTRun, runtime: Runtime, on_eval: Evaluate | None = None) -> None:
        self.run, self.runtime, self.on_eval = run, runtime, on_eval
        self.peak = measure_peak(runtime)

    def take_step(self) -> StepResult:
        """Train on the next conversations."""
        run = self.run
        before = (
            {f"{name}_at_start": value for name, value in self._heldout().items()} if not run.step else {}
        )
        start = time.perf_counter()
        numbers = next_conversations(run)
        batches = list(run.data.batches(numbers, run.config.micro_tokens))
        tokens = int(run.data.lengths[numbers].sum())
        settings = step_settings(run, tokens)
        with learning_from(lambda: _named_tensors(batches)):
            step_batches = self._on_device(batches)
            stats = train_step(run.model, run.optimizers, step_batches, settings)
        flops = self._flops(step_batches, settings)
        run.step, run.tokens, run.flops = run.step + 1, run.tokens + tokens, added(run.flops, flops)
        seconds = time.perf_counter() - start
        flops_per_s = sum(flops.values()) / seconds
        self.peak = max(self.peak, flops_per_s)  # it was measured beside other work
        row = (
            before
            | _row(run, stats)
            | {
                "lr": run.config.optim.lr * settings.lr_share,
                "batch": len(numbers),
                "learned_tokens": sum(int(batch.loss_mask.sum()) for batch in batches),
                "padding": 1 - tokens / sum(batch.inputs.size for batch in batches),
                "tokens_per_s": tokens / seconds,
                "peak_share": flops_per_s / self.peak,
            }
        )
        return StepResult(row=row)

    def evaluate(self) -> Mapping[str, Any]:
        """Bits per byte of the learned text of held-out conversations, and the caller's own figures."""
        figures = self._heldout()
        if figures:
            judge(self.run, figures["heldout_bits_per_byte"])
        return figures | dict(self.on_eval(self.run.model) if self.on_eval else {})

    def save(self) -> None:
        save(self.run)

    def finish(self) -> dict[str, Any]:
        """Leave the final model (and adapter), curves, receipt and report; returns the report."""
        run = self.run
        load_best(run)
        figures = summary(run)
        write_result(run, partial(write_model, run))
        draw_curves(run)
        return write_report(run, self.runtime, figures, data=run.manifest, peak=self.peak)

    def _flops(self, batches: Sequence[MicroBatch], settings: StepSettings) -> Flops:
        run = self.run
        depths = run.model.config.num_nextn_predict_layers if settings.mtp_weight else 0
        flops = learning_flops(run.model.config, batches, method_of(run.config), depths)
        return flops | update_flops(run.optimizers)

    def _heldout(self) -> dict[str, Any]:
        run = self.run
        text_bytes = int(run.heldout_data.text_bytes[run.heldout].sum())
        if not text_bytes:
            return {}
        batches = run.heldout_data.batches(run.heldout, run.config.micro_tokens)
        nll = summed_nll(run.model, self._on_device(batches))
        return {"heldout_bits_per_byte": nll / math.log(2) / text_bytes}

    def _on_device(self, batches: Iterable[ConversationBatch]) -> list[MicroBatch]:
        device = self.runtime.device
        arrays = ((batch.inputs, batch.targets, batch.loss_mask) for batch in batches)
        return [MicroBatch(*(torch.from_numpy(array).to(device) for array in batch)) for batch in arrays]


def next_conversations(run: SFTRun) -> list[int]:
    """Numbers of the next step's conversations; the remaining tokens are divided evenly among the steps."""
    remaining = run.total_tokens - run.tokens
    steps = max(1, round(remaining / run.config.batch_tokens))
    tokens = schedule.batch_rows(run.progress, math.ceil(remaining / steps), run.config.schedule)
    return run.order.take(tokens, last=steps == 1)


def step_settings(run: SFTRun, tokens: int) -> StepSettings:
    """Values of the schedule for a step of so many tokens; the learning rate is read where it ends."""
    config, progress = run.config, run.progress
    progress_after = min((run.tokens + tokens) / run.total_tokens, 1.0)
    return StepSettings(
        lr_share=schedule.learning_rate_share(progress_after, config.schedule),
        mtp_weight=0.0 if config.lora.rank else schedule.mtp_weight(progress, config.schedule),
        bias_speed=schedule.bias_speed(progress, config.schedule),
        balance_alpha=config.balance_alpha,
        max_grad_norm=config.optim.max_grad_norm,
    )


def summary(run: SFTRun) -> dict[str, Any]:
    """Figures of the run, from its own log and data; after early stopping those of the best step."""
    best = {"best_step": run.stopping.best_step} if run.stopping.best_step else {}
    rows = read(run.out / "metrics.jsonl")
    heldout = [row["heldout_bits_per_byte"] for row in rows if "heldout_bits_per_byte" in row]
    heldout += [run.stopping.best_score] if best else []
    parameters = list(run.model.parameters())
    return {
        "start": run.config.model,
        "conversations": len(run.order.numbers),
        "heldout_conversations": len(run.heldout),
        **{name: sum(file[name] for file in run.manifest["files"]) for name in LEFT_OUT},
        "parameters_total": sum(p.numel() for p in parameters) + num_packed(run.model),
        "parameters_trained": sum(p.numel() for p in parameters if p.requires_grad),
        "steps": run.step,
        "tokens": run.tokens,
        "train_loss": mean_of(rows[-max(1, len(rows) // 20) :], "loss"),
        "train_loss_at_start": mean_of(rows[: max(1, len(rows) // 20)], "loss"),
        "heldout_bits_per_byte": heldout[-1] if heldout else None,
        "heldout_bits_per_byte_at_start": rows[0].get("heldout_bits_per_byte_at_start") if rows else None,
        "padding": mean_of(rows, "padding"),
        **best,
    }


def _row(run: SFTRun, stats: StepStats) -> dict[str, Any]:
    """The losses of the latest step for its line of metrics.jsonl."""
    text_bytes = int(run.data.text_bytes.sum())
    learned_tokens = sum(file["learned_tokens"] for file in run.manifest["files"])
    return {
        "step": run.step,
        "tokens": run.tokens,
        "progress": run.progress,
        "loss": stats.nll,
        "mtp_loss": stats.mtp_nll,
        "bits_per_byte": stats.nll / math.log(2) * learned_tokens / text_bytes if text_bytes else None,
        "balance_loss": stats.balance,
        "grad_norm": stats.grad_norm,
        "max_violation": stats.max_violation,
        "phase": schedule.phase(run.progress, run.config.schedule),
    }


def _named_tensors(batches: Sequence[ConversationBatch]) -> dict[str, torch.Tensor]:
    """Tensors of the batches with names for a file."""
    return {
        f"{index}.{name}": torch.from_numpy(getattr(batch, name))
        for index, batch in enumerate(batches)
        for name in ("inputs", "targets", "loss_mask")
    }
