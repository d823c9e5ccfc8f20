"""Reinforcement learning, the third story: questions, groups of answers, rewards, advantages, updates."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch

from shoestring.device import Runtime, measure_peak
from shoestring.errors import ConfigError, DataError, NonFiniteError, Stopped
from shoestring.model.cost import decode_flops_per_token, train_flops_per_token
from shoestring.rl.advantage import advantages
from shoestring.rl.recipe import GRPOConfig, learning_rate_share
from shoestring.rl.rollout import Answer, Question, roll_out
from shoestring.rl.run import Run, build, save, write_model
from shoestring.rl.update import Judged, UpdateStats, update
from shoestring.tasks.verify import TaskSpec, Verifier
from shoestring.train import receipt
from shoestring.train.display import Display
from shoestring.train.energy import EnergyMeter
from shoestring.train.finish import Clock, mean_of, replace_folder, settle
from shoestring.train.metrics import MetricsLog, read
from shoestring.train.stop import StopRequest

log = logging.getLogger(__name__)

Evaluate = Callable[[Run], Mapping[str, Any]]
"""Figures of the policy for its line in metrics.jsonl; asked every `eval_every` steps and at the end."""
MAX_FAULT_SHARE = 0.01
"""A verifier that fails more often than this is not measuring what it should."""
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
    """
    if runtime.world_size > 1:  # each process would train alone and overwrite what the others save
        raise ConfigError(f"WORLD_SIZE = {runtime.world_size}: `rl` runs in one process; start just one")
    title = f"{', '.join(task.name for task in config.tasks)}: {config.start} -> {out.name}"
    specs = {task.name: TaskSpec(name=task.name, options=task.options) for task in config.tasks}
    with ExitStack() as stack:
        display = stack.enter_context(Display(title, config.steps, unit="steps", quiet=quiet))
        verifier = stack.enter_context(Verifier(specs))
        run = build(config, runtime, out, resume=resume, say=display.say)
        peak = measure_peak(runtime)
        since = run.step if resume else None
        metrics = stack.enter_context(MetricsLog(out / "metrics.jsonl", since))
        kept = stack.enter_context(MetricsLog(out / "samples.jsonl", since))
        stop = stack.enter_context(StopRequest())
        clock = Clock(run.segments, stack.enter_context(EnergyMeter()))
        skipped = 0
        while run.step < config.steps:
            row, samples = _step(run, verifier)
            skipped = skipped + 1 if row["skipped"] else 0
            if run.step % config.eval_every == 0 or run.step == config.steps:
                _keep_samples(kept, run, samples)
                row |= on_eval(run) if on_eval else {}
            metrics.log(run.step, row)
            display.update(row)
            broken = _broken(verifier, skipped, out)
            if stop.wanted or broken or run.step % config.save_every == 0:
                metrics.sync()
                save(run, clock.segments())
            if broken:
                raise broken
            if stop.wanted and run.step < config.steps:
                raise Stopped(f"stopped at step {run.step:,} and saved; --resume --out {out} goes on")
        metrics.sync()
        save(run, clock.segments())
    return finish(run, clock.segments(), peak=peak, runtime=runtime)


def finish(run: Run, segments: list[receipt.Segment], *, peak: float, runtime: Runtime) -> dict[str, Any]:
    """The final model, the receipt and the report."""
    replace_folder(run.out / "model", partial(write_model, run))
    paid = receipt.Receipt(
        data={"tasks": [asdict(task) for task in run.config.tasks], "questions": run.questions.drawn},
        recipe=asdict(run.config),
        seed=run.config.seed,
        tokens=run.tokens,
        train_flops=run.flops,
        machine=receipt.describe_machine(runtime.device.type, peak),
        price=run.config.price,
        segments=segments,
    )
    return settle(run.out, paid, summary(run), peak=peak)


def summary(run: Run) -> dict[str, Any]:
    """The run in figures, from its own log."""
    rows = read(run.out / "metrics.jsonl")
    part = max(1, len(rows) // 20)
    figures: dict[str, Any] = {
        "start": run.config.start,
        "tasks": ", ".join(task.name for task in run.config.tasks),
        "steps": run.step,
        "answers": run.answers,
        "tokens": run.tokens,
    }
    for name in ("accuracy", "answer_tokens", "truncated", "entropy", "kl", "gap", "faults"):
        figures[name] = mean_of(rows[-part:], name)
        figures[f"{name}_at_start"] = mean_of(rows[:part], name)
    return figures


def _step(run: Run, verifier: Verifier) -> tuple[dict[str, Any], list[tuple[Question, list[Answer]]]]:
    """One round of answers and what is learned from it: its line for metrics.jsonl, and the answers."""
    config, start = run.config, time.perf_counter()
    run.engine.weights_changed()
    samples: list[tuple[Question, list[Answer]]] = []
    judged: list[Judged] = []
    with_signal = 0
    for _ in range(1 + config.refill):
        missing = config.prompts - with_signal
        first = run.questions.drawn
        questions = run.questions.draw(missing)
        groups = roll_out(run.engine, questions, config, verifier, first=first)
        samples += zip(questions, groups, strict=True)
        values, has_signal = judge(groups, config)
        with_signal += sum(has_signal)
        wanted = [not config.refill or signal for signal in has_signal]
        judged += [item for items, kept in zip(values, wanted, strict=True) if kept for item in items]
        if with_signal >= config.prompts:
            break
    sampled_s = time.perf_counter() - start
    if config.loss.kl_weight and run.step % config.refresh_reference == 0:
        assert run.reference is not None
        run.reference.load_state_dict(run.model.state_dict())
    share = learning_rate_share(run.step, config)
    stats = update(run.model, run.reference, run.optimizers, judged, config, lr_share=share)
    answers = [answer for _, group in samples for answer in group]
    run.step, run.answers = run.step + 1, run.answers + len(answers)
    new = sum(len(answer.token_ids) for answer in answers)
    run.tokens += new
    run.flops += _flops(run, answers, stats)
    seconds = time.perf_counter() - start
    row = _row(run, samples, stats, verifier) | {
        "groups_with_signal": with_signal / max(len(samples), 1),
        "lr": config.optim.lr * share,
        "sample_s": sampled_s,
        "update_s": seconds - sampled_s,
        "samples_per_s": len(answers) / seconds,
        "tokens_per_s": new / seconds,
    }
    return row, samples


def judge(groups: Sequence[Sequence[Answer]], config: GRPOConfig) -> tuple[list[list[Judged]], list[bool]]:
    """Each group's answers that have a reward, with their advantages; and which groups have a signal."""
    rewards = torch.tensor([[answer.reward or 0.0 for answer in group] for group in groups])
    valid = torch.tensor([[answer.reward is not None for answer in group] for group in groups])
    result = advantages(rewards, valid, config.advantage)
    judged = [
        [
            Judged(answer=answer, advantage=value)
            for answer, value in zip(group, values, strict=True)
            if answer.reward is not None
        ]
        for group, values in zip(groups, result.values_GN.tolist(), strict=True)
    ]
    return judged, result.has_signal_G.tolist()


def _row(
    run: Run, samples: Sequence[tuple[Question, Sequence[Answer]]], stats: UpdateStats, verifier: Verifier
) -> dict[str, Any]:
    """A line of metrics.jsonl, about the step that has just been taken."""
    answers = [answer for _, group in samples for answer in group]
    scored = [answer for answer in answers if answer.parts]
    tokens = sum(len(answer.token_ids) for answer in answers)
    logprobs = sum(sum(answer.logprobs) for answer in answers)
    names = list(scored[0].parts) if scored else []
    parts = {name: sum(a.parts[name] for a in scored) / len(scored) for name in names}
    by_task: dict[str, list[float]] = {}
    for question, group in samples:
        by_task.setdefault(question.task, []).extend(a.parts["accuracy"] for a in group if a.parts)
    solved = [any(a.parts.get("accuracy", 0) >= 1 for a in group) for _, group in samples]
    figures = {name: value for name, value in asdict(stats).items() if name not in ("losses", "tokens")}
    return {
        "step": run.step,
        "tokens": run.tokens,
        "reward": sum(parts.values()) if parts else None,
        **parts,
        "accuracy_by_task": {name: sum(v) / len(v) for name, v in by_task.items() if v},
        "solved_by_any": sum(solved) / max(len(solved), 1),
        "answer_tokens": tokens / max(len(answers), 1),
        "truncated": sum(answer.is_truncated for answer in answers) / max(len(answers), 1),
        "faults": 1 - len(scored) / max(len(answers), 1),
        "fault_share": verifier.fault_share(),
        "entropy": -logprobs / max(tokens, 1),
        **figures,
    }


def _flops(run: Run, answers: Sequence[Answer], stats: UpdateStats) -> float:
    """Of sampling, prompts once a group, and of the updates; from the cost model."""
    model, groups = run.model.config, max(len(answers) // run.config.group, 1)
    lengths = [len(answer.prompt_ids) + len(answer.token_ids) for answer in answers]
    mean = sum(lengths) // max(len(lengths), 1)
    sampled = sum(len(answer.token_ids) for answer in answers)
    prompts = sum(len(answer.prompt_ids) for answer in answers[:: run.config.group][:groups])
    sampling = decode_flops_per_token(model, mean) * (sampled + prompts)
    return sampling + train_flops_per_token(model, mean, mtp=False) * stats.tokens


def _broken(verifier: Verifier, skipped: int, out: Path) -> Exception | None:
    """Why the run must not go on, if so."""
    if verifier.fault_share() > MAX_FAULT_SHARE:
        words = ", ".join(f"{task}: {fault} x {n}" for (task, fault), n in verifier.faults.most_common(3))
        return DataError(
            f"{verifier.fault_share():.1%} of the verdicts failed ({words}), over {MAX_FAULT_SHARE:.0%}; "
            f"mend the task's verifier and --resume --out {out}"
        )
    if skipped >= MAX_SKIPPED:
        return NonFiniteError(
            f"{skipped} rounds in a row gave no finite update and changed nothing; "
            f"lower optim.lr in {out / 'config.toml'} and --resume"
        )
    return None


def _keep_samples(
    kept: MetricsLog, run: Run, samples: Sequence[tuple[Question, Sequence[Answer]]], count: int = 8
) -> None:
    """Some answers with their rewards: a person should read what is rewarded."""
    for question, group in samples[:count]:
        line = {
            "task": question.task,
            "question": question.example.question,
            "text": group[0].text,
            "parts": dict(group[0].parts),
            "truncated": group[0].is_truncated,
        }
        kept.log(run.step, line)
