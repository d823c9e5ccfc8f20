"""Reinforcement learning from verifiable rewards (GRPO): a whole run, from its recipe to its report."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

from shoestring.device import Runtime, measure_peak
from shoestring.errors import DataError, NonFiniteError
from shoestring.rl.recipe import GRPOConfig
from shoestring.rl.rewards import added_rewards
from shoestring.rl.rollout import Answer
from shoestring.rl.run import Run, build, save, write_result
from shoestring.rl.step import take_step
from shoestring.tasks.verify import MAX_FAULT_SHARE, Verifier
from shoestring.train.finish import mean_of, write_report
from shoestring.train.loop import Pulse, StepResult, train
from shoestring.train.parallel import Ranks
from shoestring.train.report.display import Display
from shoestring.train.report.metrics import MetricsLog, read
from shoestring.train.runs.lock import run_lock

Evaluate = Callable[[Run], Mapping[str, Any]]
"""A function with figures of the policy for metrics.jsonl, called every `eval_every` steps and at the end."""
MAX_SKIPPED = 3
"""Steps in a row without a finite update, after which the run ends."""


def grpo(
    config: GRPOConfig,
    runtime: Runtime,
    out: Path,
    *,
    resume: bool = False,
    quiet: bool = False,
    on_eval: Evaluate | None = None,
) -> dict[str, Any]:
    """Train in folder `out`; returns the report, which is also in report.json.

    `out/model` is the policy in Hugging Face layout; after a LoRA run it is the merged model, and
    `out/adapter` the adapter. `resume` continues the newest whole checkpoint; on a
    CPU the final weights are those of an unbroken run, bit for bit. Raises Stopped (saved; resume later),
    ConfigError for settings that do not fit the model, DataError if more than 1% of the verdicts fail, and
    NonFiniteError if updates do.

    Under torchrun each process samples and learns from its part of every step's problems. The number of
    processes, also that before a resume, changes the run by rounding only. The first process writes, shows
    and evaluates; the others return an empty report.
    """
    with run_lock(out) if runtime.rank == 0 else nullcontext():
        trainer = _train(config, runtime, out, resume=resume, quiet=quiet, on_eval=on_eval)
        return trainer.finish() if runtime.rank == 0 else {}


def _train(
    config: GRPOConfig, runtime: Runtime, out: Path, *, resume: bool, quiet: bool, on_eval: Evaluate | None
) -> "GRPOTrainer":
    """Take all steps that are left."""
    title = f"{', '.join(task.name for task in config.tasks)}: {config.model} -> {out.name}"
    with ExitStack() as stack:
        ranks = stack.enter_context(Ranks(runtime))
        is_quiet = quiet or not ranks.is_first
        display = stack.enter_context(Display(title, config.steps, unit="steps", quiet=is_quiet))
        run = build(config, runtime, out, ranks, resume=resume, say=display.say)
        verifier = stack.enter_context(Verifier(run.problems.tasks | added_rewards(config.reward)))
        pulse = Pulse(display.update)
        trainer = GRPOTrainer(run, runtime, verifier, on_eval, pulse)
        if ranks.is_first:
            path, last_step = out / "samples.jsonl", run.step if resume else None
            trainer.samples_log = stack.enter_context(MetricsLog(path, last_step))
        train(
            trainer,
            ranks,
            resume=resume,
            save_every=config.save_every,
            eval_every=config.eval_every,
            show=display.update,
            pulse=pulse,
        )
    return trainer


class GRPOTrainer:
    """Steps, evaluations and the end of a run of reinforcement learning."""

    def __init__(
        self,
        run: Run,
        runtime: Runtime,
        verifier: Verifier,
        on_eval: Evaluate | None = None,
        pulse: Pulse | None = None,
    ) -> None:
        self.run, self.runtime, self.verifier, self.on_eval = run, runtime, verifier, on_eval
        self.pulse = pulse
        self.peak = run.ranks.sum([measure_peak(runtime)])[0]
        self.samples_log: MetricsLog | None = None
        self._groups: list[list[Answer]] = []
        self._num_skipped = 0

    def take_step(self) -> StepResult:
        """Sample answers, reward them and learn from them."""
        row, self._groups = take_step(self.run, self.verifier, self.pulse)
        self._num_skipped = self._num_skipped + 1 if row["skipped"] else 0
        failure = _failure(row["fault_share"], self.verifier, self._num_skipped, self.run.out)
        return StepResult(row=row, failure=failure)

    def evaluate(self) -> Mapping[str, Any]:
        """The caller's figures of the policy; some of the step's answers go to samples.jsonl."""
        if self.samples_log is not None:
            _log_samples(self.samples_log, self.run.step, self._groups)
        return self.on_eval(self.run) if self.on_eval else {}

    def save(self) -> None:
        save(self.run)

    def finish(self) -> dict[str, Any]:
        """Write the final model, receipt and report; returns the report."""
        run = self.run
        write_result(run)
        data = {"tasks": [asdict(task) for task in run.config.tasks], "questions": run.problems.num_drawn}
        return write_report(run, self.runtime, summary(run), data=data, peak=self.peak)


def summary(run: Run) -> dict[str, Any]:
    """Figures of the run, from its metrics.jsonl."""
    rows = read(run.out / "metrics.jsonl")
    part = max(1, len(rows) // 20)
    figures: dict[str, Any] = {
        "start": run.config.model,
        "tasks": ", ".join(task.name for task in run.config.tasks),
        "steps": run.step,
        "answers": run.answers,
        "tokens": run.tokens,
        "overlong": run.prompts.overlong_share,
    }
    for name in ("accuracy", "answer_tokens", "truncated", "entropy", "kl", "gap", "faults"):
        figures[name] = mean_of(rows[-part:], name)
        figures[f"{name}_at_start"] = mean_of(rows[:part], name)
    return figures


def _failure(
    fault_share: float, verifier: Verifier, num_skipped: int, out: Path
) -> DataError | NonFiniteError | None:
    """The reason to end the run, if there is one; the same on all processes."""
    if fault_share > MAX_FAULT_SHARE:
        return DataError(
            f"{fault_share:.1%} of the verdicts failed ({verifier.fault_counts() or 'in other processes'}), "
            f"over {MAX_FAULT_SHARE:.0%}; repair the task's verifier, then --resume --out {out}"
        )
    if num_skipped >= MAX_SKIPPED:
        return NonFiniteError(
            f"{num_skipped} steps in a row had no finite update and changed nothing; "
            f"go on with a lower rate: --resume --out {out} --set optim.lr=..."
        )
    return None


def _log_samples(log: MetricsLog, step: int, groups: Sequence[Sequence[Answer]], count: int = 8) -> None:
    """Write the first answer of some groups with its rewards, for a person to read."""
    for answer, *_ in groups[:count]:
        line = {
            "task": answer.problem.task,
            "question": answer.problem.example.question,
            "text": answer.text,
            "parts": dict(answer.parts),
            "truncated": answer.is_truncated,
        }
        if answer.messages:
            line["messages"] = list(answer.messages)
        line |= {
            name: dict(values)
            for name, values in (("rewards", answer.rewards), ("notes", answer.notes))
            if values
        }
        log.log(step, line)
