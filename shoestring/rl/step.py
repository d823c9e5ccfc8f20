"""One step of reinforcement learning: groups of answers are sampled and rewarded, and the policy learns."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from shoestring.cost.step import added
from shoestring.errors import Stopped
from shoestring.rl.advantage import AdvantageKind, advantages
from shoestring.rl.progress import SamplingProgress
from shoestring.rl.rollout import Answer, roll_out
from shoestring.rl.run import Run
from shoestring.rl.step_figures import metrics_row, step_flops, step_sums
from shoestring.rl.update import update
from shoestring.tasks.verify import Verifier
from shoestring.train import schedule
from shoestring.train.loop import Pulse
from shoestring.train.runs.crash import learning_from


@dataclass(slots=True)
class Samples:
    """The answers of one step, those of this process."""

    groups: list[list[Answer]] = field(default_factory=list)
    """A group per problem."""
    rounds: list[list[Answer]] = field(default_factory=list)
    """The answers to learn from, by round of sampling."""
    num_with_signal: int = 0
    """Groups, of all processes, whose answers have different rewards."""


def take_step(
    run: Run, verifier: Verifier, pulse: Pulse | None = None
) -> tuple[dict[str, Any], list[list[Answer]]]:
    """Take a step; returns its line for metrics.jsonl and this process's groups of answers.

    A `pulse` shows how far it is, and raises Abandoned when the run should end while it samples. That, and a
    judge's budget that is used up, leave the run as it was.
    """
    verifier.state = {"global_step": run.step, "max_steps": run.config.steps}
    verifier.metrics.clear()
    config, start, num_overlong = run.config, time.perf_counter(), run.prompts.num_overlong
    num_drawn = run.problems.num_drawn
    try:
        samples = sample(run, verifier, pulse)
    except Stopped:
        run.problems.num_drawn = num_drawn  # the run draws them again when it goes on
        run.prompts.num_overlong = num_overlong
        raise
    sample_s = time.perf_counter() - start
    if pulse is not None:
        pulse.say(f"learning from {sum(map(len, samples.rounds)):,} answers")
    if run.reference is not None and run.step and run.step % config.ref_model_sync_steps == 0:
        run.reference.renew()
    lr_share = schedule.warmup_cosine_share(
        run.step, steps=config.steps, warmup_steps=config.warmup_steps, min_ratio=config.min_lr_ratio
    )
    with learning_from(lambda: _named_tensors(samples.groups)):
        stats = update(run, samples.rounds, lr_share=lr_share)
    run.engine.weights_changed()
    sums = step_sums(run, samples.groups, verifier)
    num_answers, num_tokens = int(sums["answers"]), int(sums["tokens"])
    run.step, run.answers, run.tokens = run.step + 1, run.answers + num_answers, run.tokens + num_tokens
    run.flops = added(run.flops, step_flops(run.model.config, sums, stats))
    seconds = time.perf_counter() - start
    row = metrics_row(run, sums, stats) | {
        "groups_with_signal": samples.num_with_signal / max(sums["groups"], 1),
        **_reward_metrics(verifier),
        "overlong": run.prompts.num_overlong - num_overlong,
        "lr": config.optim.lr * lr_share,
        "sample_s": sample_s,
        "update_s": seconds - sample_s,
        "samples_per_s": num_answers / seconds,
        "tokens_per_s": num_tokens / seconds,
    }
    return row, samples.groups


def _reward_metrics(verifier: Verifier) -> dict[str, Any]:
    """The figures that reward functions logged in this process, by name; nothing without any."""
    means = {name: sum(values) / len(values) for name, values in verifier.metrics.items()}
    return {"reward_metrics": means} if means else {}


def sample(run: Run, verifier: Verifier, pulse: Pulse | None = None) -> Samples:
    """Groups of answers with their advantages; further rounds replace groups that have no signal.

    Without dynamic sampling there is one round, and groups without a signal are part of it.
    """
    config, ranks, samples = run.config, run.ranks, Samples()
    for _ in range(1 + config.dynamic_sampling):
        num_missing = config.num_prompts - samples.num_with_signal
        part, first = ranks.part(num_missing), run.problems.num_drawn
        problems = run.problems.draw_prompted(num_missing, run.prompts, run.tools)[part.start : part.stop]
        run.prompts.warn()
        on_step = _progress(run, len(problems), pulse)
        groups = roll_out(
            run.engine,
            problems,
            config,
            verifier,
            first=first + part.start,
            on_step=on_step,
            scorer=run.scorer if is_preferring(run) else None,
        )
        groups = with_advantages(groups, config.advantage)
        with_signal = [group for group in groups if any(answer.advantage for answer in group)]
        learned_groups = with_signal if config.dynamic_sampling else groups
        samples.groups += groups
        samples.rounds.append(
            [answer for group in learned_groups for answer in group if answer.reward is not None]
        )
        samples.num_with_signal += ranks.count(len(with_signal))
        if samples.num_with_signal >= config.num_prompts:
            break
    return samples


def is_preferring(run: Run) -> bool:
    """Return whether the reward model judges the answers of the next step."""
    model_steps = run.config.reward.model_steps
    return not model_steps or run.step >= run.config.steps - model_steps


def _progress(run: Run, num_problems: int, pulse: Pulse | None) -> Callable[[], None]:
    """The function that shows how far the sampling is. Ranks end together, so several never leave it."""
    if pulse is None or run.ranks.world_size > 1:
        return lambda: None
    return SamplingProgress(
        run.engine,
        pulse,
        num_answers=num_problems * run.config.num_generations,
        max_tokens=run.config.max_tokens,
        tokens_per_answer=run.tokens / run.answers if run.answers else None,
    )


def with_advantages(groups: Sequence[Sequence[Answer]], kind: AdvantageKind) -> list[list[Answer]]:
    """The groups with each answer's advantage: zero without a reward, and where all rewards are equal."""
    if not groups:
        return []
    rewards = torch.tensor([[answer.reward or 0.0 for answer in group] for group in groups])
    valid = torch.tensor([[answer.reward is not None for answer in group] for group in groups])
    values = advantages(rewards, valid, kind).values_GX.tolist()
    return [
        [replace(answer, advantage=value) for answer, value in zip(group, row, strict=True)]
        for group, row in zip(groups, values, strict=True)
    ]


def _named_tensors(groups: Sequence[Sequence[Answer]]) -> dict[str, torch.Tensor]:
    """Tokens of the answers, prompts included, with names for a file."""
    return {
        f"{group}.{number}.ids": torch.tensor((*answer.prompt_ids, *answer.token_ids))
        for group, answers in enumerate(groups)
        for number, answer in enumerate(answers)
    }
