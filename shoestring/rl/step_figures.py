"""The figures of a step, summed over the answers of all processes: its line of metrics.jsonl, its FLOPs."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from shoestring.cost.sampling import SamplingCounts, answer, prompt, sampling
from shoestring.cost.step import Flops, added
from shoestring.model.config import ModelConfig
from shoestring.rl.rewards import added_rewards, part_names
from shoestring.rl.rollout import Answer
from shoestring.rl.run import Run
from shoestring.rl.update import UpdateStats
from shoestring.tasks.verify import SHARE_FROM, Verifier


def step_sums(run: Run, groups: Sequence[Sequence[Answer]], verifier: Verifier) -> dict[str, float]:
    """Counts and sums over the answers of all processes, by name."""
    answers = [answer for group in groups for answer in group]
    with_reward = [answer for answer in answers if answer.parts]
    sums: dict[str, float] = {
        "groups": len(groups),
        "answers": len(answers),
        "with_reward": len(with_reward),
        "tokens": sum(answer.num_own for answer in answers),
        "calls": sum(answer.num_calls for answer in answers),
        "call_errors": sum(answer.num_errors for answer in answers),
        "logprobs": sum(sum(answer.logprobs) for answer in answers),
        "truncated": sum(answer.is_truncated for answer in answers),
        "verified": sum("accuracy" in answer.parts for answer in answers),
        "verified groups": sum(any("accuracy" in answer.parts for answer in group) for group in groups),
        "solved": sum(any(answer.parts.get("accuracy", 0) >= 1 for answer in group) for group in groups),
        **asdict(_sampling_counts(groups)),
        "verdicts": verifier.verdicts,
        "faults": verifier.faults.total(),
    }
    for name in part_names(run.config.reward):
        sums[f"part {name}"] = sum(answer.parts.get(name, 0.0) for answer in with_reward)
    for name in function_names(run):
        values = [answer.rewards[name] for answer in answers if name in answer.rewards]
        sums |= {f"function {name}": sum(values), f"count of {name}": len(values)}
    for share in run.config.tasks:
        own = [answer.parts for answer in with_reward if answer.problem.task == share.name]
        accuracies = [parts["accuracy"] for parts in own if "accuracy" in parts]
        sums |= {f"task {share.name}": sum(accuracies), f"count {share.name}": len(accuracies)}
    return dict(zip(sums, run.ranks.sum(sums.values()), strict=True))


def metrics_row(run: Run, sums: Mapping[str, float], stats: UpdateStats) -> dict[str, Any]:
    """The line of metrics.jsonl about the step that has just been taken."""
    with_reward, answers = sums["with_reward"], max(sums["answers"], 1)
    parts = {
        name: sums[f"part {name}"] / with_reward for name in part_names(run.config.reward) if with_reward
    }
    tasks = [share.name for share in run.config.tasks if sums[f"count {share.name}"]]
    function_means = {
        name: sums[f"function {name}"] / sums[f"count of {name}"]
        for name in function_names(run)
        if sums[f"count of {name}"]
    }
    return {
        "step": run.step,
        "tokens": run.tokens,
        "reward": sum(parts.values()) if parts else None,
        **parts,
        "accuracy": _mean(sums["part accuracy"], sums["verified"]),
        **(_tool_figures(sums) if run.tools else {}),
        **({"rewards": function_means} if function_means else {}),
        "accuracy_by_task": {name: sums[f"task {name}"] / sums[f"count {name}"] for name in tasks},
        "solved_by_any": _mean(sums["solved"], sums["verified groups"]),
        "answer_tokens": sums["tokens"] / answers,
        "truncated": sums["truncated"] / answers,
        "faults": 1 - with_reward / answers,
        "fault_share": sums["faults"] / sums["verdicts"] if sums["verdicts"] >= SHARE_FROM else 0.0,
        "entropy": -sums["logprobs"] / max(sums["tokens"], 1),
        "loss": stats.loss,
        "grad_norm": stats.grad_norm,
        "clip_share": stats.clip_share,
        "kl": stats.kl,
        "drift": stats.drift,
        "off_policy_share": stats.off_policy_share,
        "gap": stats.gap,
        "skipped": stats.num_skipped,
    }


def _mean(total: float, count: float) -> float | None:
    """The mean over the answers or groups that a program verified; None where a reward model judged all."""
    return total / count if count else None


def step_flops(model: ModelConfig, sums: Mapping[str, float], stats: UpdateStats) -> Flops:
    """FLOPs of sampling, prompts once a group, and of the update."""
    counts = SamplingCounts(**{name: int(sums[name]) for name in ("read", "pairs", "draws")})
    return {name: value for name, value in added(stats.flops, sampling(model, counts)).items() if value}


def _sampling_counts(groups: Sequence[Sequence[Answer]]) -> SamplingCounts:
    """Counts of what the engine did for the groups."""
    total = SamplingCounts()
    for group in groups:
        length = len(group[0].prompt_ids)
        total += prompt(length)
        for each in group:
            total += answer(length, len(each.token_ids), each.num_own)
    return total


def _tool_figures(sums: Mapping[str, float]) -> dict[str, float]:
    """Calls of tools for each answer, and the share of them whose result is an error."""
    return {
        "tool_calls": sums["calls"] / max(sums["answers"], 1),
        "tool_errors": sums["call_errors"] / max(sums["calls"], 1),
    }


def function_names(run: Run) -> list[str]:
    """The names of the reward functions of all tasks and of the recipe."""
    tasks = [*run.problems.tasks.values(), *added_rewards(run.config.reward).values()]
    return list(dict.fromkeys(name for task in tasks for name in task.part_names))
