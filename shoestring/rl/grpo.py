"""Reinforcement learning, the third story: questions, groups of answers, rewards, advantages, updates."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from shoestring.device import Runtime, measure_peak
from shoestring.errors import DataError, NonFiniteError, Stopped
from shoestring.model.cost import decode_flops_per_token, train_flops_per_token
from shoestring.rl.advantage import advantages
from shoestring.rl.recipe import GRPOConfig
from shoestring.rl.rollout import Answer, Question, reward_parts, roll_out
from shoestring.rl.run import Run, build, save, write_model
from shoestring.rl.update import Judged, UpdateStats, update
from shoestring.tasks.load import load_task
from shoestring.tasks.verify import MAX_FAULT_SHARE, SHARE_FROM, Verifier
from shoestring.train import schedule
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
        tasks = {share.name: load_task(share.name, share.options) for share in config.tasks}
        verifier = stack.enter_context(Verifier(tasks))
        run = build(config, runtime, out, ranks, resume=resume, say=display.say)
        peak = ranks.sum([measure_peak(runtime)])[0]
        since = run.step if resume else None
        names = ("metrics.jsonl", "samples.jsonl") if ranks.is_first else ()
        logs = [stack.enter_context(MetricsLog(out / name, since)) for name in names]
        stop = stack.enter_context(StopRequest())
        clock = Clock(run.segments, stack.enter_context(EnergyMeter()))
        skipped = 0
        while run.step < config.steps:
            row, samples = _step(run, verifier)
            skipped = skipped + 1 if row["skipped"] else 0
            if logs:
                metrics, kept = logs
                if run.step % config.eval_every == 0 or run.step == config.steps:
                    _keep_samples(kept, run, samples)
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
        data={"tasks": [asdict(task) for task in run.config.tasks], "questions": run.questions.drawn},
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


def _step(run: Run, verifier: Verifier) -> tuple[dict[str, Any], list[tuple[Question, list[Answer]]]]:
    """What is sampled and learned in a step: its line for metrics.jsonl, and this process's answers."""
    config, ranks, start = run.config, run.ranks, time.perf_counter()
    samples: list[tuple[Question, list[Answer]]] = []
    judged: list[Judged] = []
    with_signal = number = 0
    for _ in range(1 + config.dynamic_sampling):
        missing = config.num_prompts - with_signal
        part, first = ranks.part(missing), run.questions.drawn
        questions = run.questions.draw(missing)[part.start : part.stop]
        groups = roll_out(run.engine, questions, config, verifier, first=first + part.start)
        samples += zip(questions, groups, strict=True)
        values, has_signal = judge(groups, config)
        with_signal += int(ranks.sum([sum(has_signal)])[0])
        wanted = [not config.dynamic_sampling or signal for signal in has_signal]
        kept = [item for items, is_kept in zip(values, wanted, strict=True) if is_kept for item in items]
        counts = [int(count) for count in ranks.each(len(kept))]
        before = number + sum(counts[: ranks.rank])
        judged += [replace(item, number=before + place) for place, item in enumerate(kept)]
        number += sum(counts)
        if with_signal >= config.num_prompts:
            break
    sampled_s = time.perf_counter() - start
    if config.loss.beta and run.step % config.ref_model_sync_steps == 0:
        assert run.reference is not None
        run.reference.load_state_dict(run.model.state_dict())
    share = schedule.warmup_cosine_share(
        run.step, steps=config.steps, warmup_steps=config.warmup_steps, min_ratio=config.min_lr_ratio
    )
    stats = update(run.model, run.reference, run.optimizers, judged, config, lr_share=share, ranks=ranks)
    run.engine.weights_changed()
    sums = _sums(run, samples, verifier)
    answers, new = int(sums["answers"]), int(sums["tokens"])
    run.step, run.answers, run.tokens = run.step + 1, run.answers + answers, run.tokens + new
    run.flops += _flops(run, sums, stats)
    seconds = time.perf_counter() - start
    row = _row(run, sums, stats) | {
        "groups_with_signal": with_signal / max(sums["groups"], 1),
        "lr": config.optim.lr * share,
        "sample_s": sampled_s,
        "update_s": seconds - sampled_s,
        "samples_per_s": answers / seconds,
        "tokens_per_s": new / seconds,
    }
    return row, samples


def judge(groups: Sequence[Sequence[Answer]], config: GRPOConfig) -> tuple[list[list[Judged]], list[bool]]:
    """Each group's answers that have a reward, with their advantages; and which groups have a signal."""
    if not groups:
        return [], []
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


def _sums(
    run: Run, samples: Sequence[tuple[Question, Sequence[Answer]]], verifier: Verifier
) -> dict[str, float]:
    """What a step's figures are made of, summed over the answers of all processes."""
    answers = [answer for _, group in samples for answer in group]
    scored = [answer for answer in answers if answer.parts]
    sums: dict[str, float] = {
        "groups": len(samples),
        "answers": len(answers),
        "scored": len(scored),
        "tokens": sum(len(answer.token_ids) for answer in answers),
        "logprobs": sum(sum(answer.logprobs) for answer in answers),
        "truncated": sum(answer.is_truncated for answer in answers),
        "solved": sum(any(a.parts.get("accuracy", 0) >= 1 for a in group) for _, group in samples),
        "lengths": sum(len(answer.prompt_ids) + len(answer.token_ids) for answer in answers),
        "prompts": sum(len(group[0].prompt_ids) for _, group in samples),
        "verdicts": verifier.verdicts,
        "faults": verifier.faults.total(),
    }
    for name in _part_names(run):
        sums[f"part {name}"] = sum(answer.parts[name] for answer in scored)
    for task in run.config.tasks:
        mine = [a.parts["accuracy"] for q, group in samples if q.task == task.name for a in group if a.parts]
        sums |= {f"task {task.name}": sum(mine), f"count {task.name}": len(mine)}
    return dict(zip(sums, run.ranks.sum(sums.values()), strict=True))


def _part_names(run: Run) -> list[str]:
    return list(reward_parts(0.0, "", run.config.reward))


def _row(run: Run, sums: Mapping[str, float], stats: UpdateStats) -> dict[str, Any]:
    """A line of metrics.jsonl, about the step that has just been taken."""
    scored, answers = sums["scored"], max(sums["answers"], 1)
    parts = {name: sums[f"part {name}"] / scored for name in _part_names(run) if scored}
    tasks = [task.name for task in run.config.tasks if sums[f"count {task.name}"]]
    figures = {name: value for name, value in asdict(stats).items() if name not in ("losses", "tokens")}
    return {
        "step": run.step,
        "tokens": run.tokens,
        "reward": sum(parts.values()) if parts else None,
        **parts,
        "accuracy_by_task": {name: sums[f"task {name}"] / sums[f"count {name}"] for name in tasks},
        "solved_by_any": sums["solved"] / max(sums["groups"], 1),
        "answer_tokens": sums["tokens"] / answers,
        "truncated": sums["truncated"] / answers,
        "faults": 1 - scored / answers,
        "fault_share": sums["faults"] / sums["verdicts"] if sums["verdicts"] >= SHARE_FROM else 0.0,
        "entropy": -sums["logprobs"] / max(sums["tokens"], 1),
        **figures,
    }


def _flops(run: Run, sums: Mapping[str, float], stats: UpdateStats) -> float:
    """Of sampling, prompts once a group, and of the updates; from the cost model."""
    model = run.model.config
    mean = int(sums["lengths"]) // max(int(sums["answers"]), 1)
    sampling = decode_flops_per_token(model, mean) * int(sums["tokens"] + sums["prompts"])
    return sampling + train_flops_per_token(model, mean, mtp=False) * stats.tokens


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
