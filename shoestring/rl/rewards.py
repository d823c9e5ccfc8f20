"""The reward of an answer: that of its task, and those that the recipe adds to every task."""

from collections.abc import Mapping

from shoestring.rl.recipe import RewardConfig
from shoestring.tasks.custom.prompts import Prompts
from shoestring.tasks.rewards import format_reward, language_reward
from shoestring.tasks.task import BatchTask
from shoestring.tasks.verify import Verdict

FUNCTIONS = "functions"
"""The name of the reward functions of the recipe, as of a task."""


def added_rewards(config: RewardConfig) -> dict[str, BatchTask]:
    """The rewards that the recipe adds and that a verifier computes, by name."""
    if not config.functions:
        return {}
    return {FUNCTIONS: Prompts(functions=config.functions, weights=config.weights)}


def part_names(config: RewardConfig) -> list[str]:
    """The names of the components of a reward, where all apply."""
    names = {"format": config.format, "language": config.language, FUNCTIONS: config.functions}
    return ["accuracy", *(name for name, is_used in names.items() if is_used)]


def reward_parts(verdicts: Mapping[str, Verdict], text: str, config: RewardConfig) -> dict[str, float]:
    """Components of an answer's reward by name; none where a verifier failed, or where nothing applies.

    `verdicts` are those of the task, under `accuracy`, and of the added rewards.
    """
    if any(verdict.fault for verdict in verdicts.values()):
        return {}
    parts = {name: verdict.reward for name, verdict in verdicts.items() if verdict.reward is not None}
    if parts and config.format:
        parts["format"] = config.format * format_reward(text)
    if parts and config.language:
        parts["language"] = config.language_weight * language_reward(text, config.language)
    return parts
