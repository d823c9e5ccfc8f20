"""The reward of an answer: that of its task, and those that the recipe adds to every task."""

import math
from collections.abc import Mapping, Sequence

from shoestring.model.hf.reward import RewardScorer
from shoestring.rl.recipe import RewardConfig
from shoestring.tasks.custom.judge import Judge
from shoestring.tasks.custom.prompts import Prompts
from shoestring.tasks.rewards import format_reward, language_reward
from shoestring.tasks.task import BatchTask, Problem
from shoestring.tasks.verify import Verdict

FUNCTIONS = "functions"
"""The name of the reward functions of the recipe, as of a task."""
PREFERENCE = "preference"
"""The name of the reward model's part."""
JUDGE = "judge"
"""The name of the recipe's judge."""


def added_rewards(config: RewardConfig) -> dict[str, BatchTask]:
    """The rewards that the recipe adds and that a verifier computes, by name."""
    rewards: dict[str, BatchTask] = {}
    if config.functions:
        rewards[FUNCTIONS] = Prompts(functions=config.functions, weights=config.weights)
    if config.judge is not None:
        rewards[JUDGE] = Judge(judge=config.judge, setting="reward.judge")
    return rewards


def part_names(config: RewardConfig) -> list[str]:
    """The names of the components of a reward, where all apply."""
    names = {
        "format": config.format,
        "language": config.language,
        FUNCTIONS: config.functions,
        PREFERENCE: config.model,
        JUDGE: config.judge,
    }
    return ["accuracy", *(name for name, is_used in names.items() if is_used)]


def reward_parts(verdicts: Mapping[str, Verdict], text: str, config: RewardConfig) -> dict[str, float]:
    """Components of an answer's reward by name; none where a verifier failed, or where nothing applies.

    `verdicts` are those of the task, under `accuracy`, and of the added rewards.
    """
    if any(verdict.fault for verdict in verdicts.values()):
        return {}
    parts = {name: verdict.reward for name, verdict in verdicts.items() if verdict.reward is not None}
    if JUDGE in parts and config.judge is not None:
        parts[JUDGE] *= config.judge.weight
    return parts | form_parts(text, config) if parts else {}


def form_parts(text: str, config: RewardConfig) -> dict[str, float]:
    """The components for the form of an answer."""
    parts = {}
    if config.format:
        parts["format"] = config.format * format_reward(text)
    if config.language:
        parts["language"] = config.language_weight * language_reward(text, config.language)
    return parts


def with_preferences(
    answers: Sequence[tuple[Problem, str, Mapping[str, float]]], scorer: RewardScorer, config: RewardConfig
) -> list[Mapping[str, float]]:
    """The parts of each answer's reward with the reward model's, from its problem, text and parts so far.

    The model reads the answer without the thinking (DeepSeek-R1, section 2.3.4). Its score, a log-odds,
    becomes a chance of 0 to 1: so it weighs as much as a right answer. In `model_tasks` it takes the place of
    the program's verdict.
    """
    own = [number for number, (problem, *_) in enumerate(answers) if _is_for_model(problem, config)]
    talks = [problem.example.answered(text) for problem, text, _ in (answers[number] for number in own)]
    rewards = [parts for *_, parts in answers]
    for number, score in zip(own, scorer.score(talks), strict=True):
        _, text, parts = answers[number]
        others = {k: v for k, v in parts.items() if k != "accuracy"} if config.model_tasks else parts
        preference = config.model_weight * _sigmoid(score)
        rewards[number] = {**form_parts(text, config), **others, PREFERENCE: preference}
    return rewards


def _is_for_model(problem: Problem, config: RewardConfig) -> bool:
    return not config.model_tasks or problem.task in config.model_tasks


def _sigmoid(score: float) -> float:
    return 1 / (1 + math.exp(-max(-700.0, min(score, 700.0))))
