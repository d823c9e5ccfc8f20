"""Reinforcement learning, the third story: questions, groups of answers, rewards, advantages, updates."""

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from shoestring.device import Runtime, measure_peak
from shoestring.errors import DataError, NonFiniteError, Stopped
from shoestring.rl.recipe import GRPOConfig
from shoestring.rl.rollout import Answer
from shoestring.rl.run import Run, build, save, write_model
from shoestring.rl.step import take_step
from shoestring.tasks.verify import MAX_FAULT_SHARE, Verifier
from shoestring.train.finish import Clock, mean_of, replace_folder, settle
from shoestring.train.parallel import Ranks
from shoestring.train.report import receipt
from shoestring.train.report.display import Display
from shoestring.train.report.energy import EnergyMeter
from shoestring.train.report.metrics import MetricsLog, read
from shoestring.train.stop import StopRequest

log = logging.getLogger(__name__)

Evaluate = Callable[[Run], Mapping[str, Any]]
"""Figures of the policy for its line in metrics.jsonl; asked every `eval_every` steps and at the end."""
MAX_SKIPPED = 3
"""Rounds in a row without a finite update, after which something is broken."""


def grpo(
    config: GRPOConfig,
    runtime: Runtime,
    out: Path,
    *,
    resume: bool = False,
    quiet: bool = False,
    on_eval: Evaluate | None = None,
) -> dict[str, Any]:
    """Reinforce in folder `out` and return the report, which is also left there as report.json.

    `out/model` is the policy in Hugging Face layout. `resume` continues the newest whole checkpoint; on a
    CPU the final weights are those of an unbroken run, bit for bit. Raises Stopped (saved; resume later),
    DataError when more than 1% of the verdicts fail, NonFiniteError when updates do, and every error of the
    rooms below.

    Under torchrun each process asks and learns from its part of every step's questions, and the run is that
    of one process but for rounding, whatever their number, before a resume and after. The first one writes,
    shows and evaluates; the others return an empty report.
    """
    title = f"{', '.join(task.name for task in config.tasks)}: {config.model} -> {out.name}"
    with ExitStack() as stack:
        ranks = stack.enter_context(Ranks(runtime))
        is_quiet = quiet or not ranks.is_first
        display = stack.enter_context(Display(title, config.steps, unit="steps", quiet=is_quiet))
        run = build(config, runtime, out, ranks, resume=resume, say=display.say)
        verifier = stack.enter_context(Verifier(run.problems.tasks))
        peak = ranks.sum([measure_peak(runtime)])[0]
        since = run.step if resume else None
        names = ("metrics.jsonl", "samples.jsonl") if ranks.is_first else ()
        logs = [stack.enter_context(MetricsLog(out / name, since)) for name in names]
        stop = stack.enter_context(StopRequest())
        clock = Clock(run.segments, stack.enter_context(EnergyMeter()))
        skipped = 0
        while run.step < config.steps:
            row, groups = take_step(run, verifier)
            skipped = skipped + 1 if row["skipped"] else 0
            if logs:
                metrics, samples_log = logs
                if run.step % config.eval_every == 0 or run.step == config.steps:
                    _log_samples(samples_log, run.step, groups)
                    row |= on_eval(run) if on_eval else {}
                metrics.log(run.step, row)
                display.update(row)
            broken = _broken(row["fault_share"], verifier, skipped, out)
            is_stopped = ranks.any(stop.wanted)
            if is_stopped or broken or run.step % config.save_every == 0:
                _sync_and_save(run, logs, clock)
            if broken:
                raise broken
            if is_stopped and run.step < config.steps:
                raise Stopped(f"stopped at step {run.step:,} and saved; --resume --out {out} goes on")
        _sync_and_save(run, logs, clock)
    return finish(run, clock.segments(), peak=peak, runtime=runtime) if ranks.is_first else {}


def _sync_and_save(run: Run, logs: Sequence[MetricsLog], clock: Clock) -> None:
    for file in logs[:1]:
        file.sync()
    save(run, clock.segments())


def finish(run: Run, segments: list[receipt.Segment], *, peak: float, runtime: Runtime) -> dict[str, Any]:
    """The final model, the receipt and the report; `peak` is of all processes together."""
    machine = receipt.describe_machine(runtime.device.type, peak)
    if runtime.world_size > 1:
        machine |= {"processes": runtime.world_size}
    replace_folder(run.out / "model", partial(write_model, run))
    paid = receipt.Receipt(
        data={"tasks": [asdict(task) for task in run.config.tasks], "questions": run.problems.num_drawn},
        recipe=asdict(run.config),
        seed=run.config.seed,
        tokens=run.tokens,
        train_flops=run.flops,
        machine=machine,
        price=run.config.price,
        segments=segments,
    )
    return settle(run.out, paid, summary(run), peak=peak)


def summary(run: Run) -> dict[str, Any]:
    """The run in figures, from its own log."""
    rows = read(run.out / "metrics.jsonl")
    part = max(1, len(rows) // 20)
    figures: dict[str, Any] = {
        "start": run.config.model,
        "tasks": ", ".join(task.name for task in run.config.tasks),
        "steps": run.step,
        "answers": run.answers,
        "tokens": run.tokens,
    }
    for name in ("accuracy", "answer_tokens", "truncated", "entropy", "kl", "gap", "faults"):
        figures[name] = mean_of(rows[-part:], name)
        figures[f"{name}_at_start"] = mean_of(rows[:part], name)
    return figures


def _broken(fault_share: float, verifier: Verifier, skipped: int, out: Path) -> Exception | None:
    """Why the run must not go on, if so; all processes come to the same."""
    if fault_share > MAX_FAULT_SHARE:
        return DataError(
            f"{fault_share:.1%} of the verdicts failed ({verifier.fault_counts() or 'in other processes'}), "
            f"over {MAX_FAULT_SHARE:.0%}; mend the task's verifier and --resume --out {out}"
        )
    if skipped >= MAX_SKIPPED:
        return NonFiniteError(
            f"{skipped} rounds in a row gave no finite update and changed nothing; "
            f"lower optim.lr in {out / 'config.toml'} and --resume"
        )
    return None


def _log_samples(log: MetricsLog, step: int, groups: Sequence[Sequence[Answer]], count: int = 8) -> None:
    """Some answers with their rewards: a person should read what is rewarded."""
    for answer, *_ in groups[:count]:
        line = {
            "task": answer.problem.task,
            "question": answer.problem.example.question,
            "text": answer.text,
            "parts": dict(answer.parts),
            "truncated": answer.is_truncated,
        }
        log.log(step, line)
