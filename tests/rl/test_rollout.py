"""Rewards of the answers that a policy sampled."""

from shoestring.rl.recipe import RewardConfig
from shoestring.rl.rollout import reward_parts


def test_a_reward_has_the_parts_that_the_recipe_names():
    text = "<think>two and two</think>4"
    assert reward_parts(1.0, text, RewardConfig()) == {"accuracy": 1.0}
    both = RewardConfig(format=0.5, language="en", language_weight=0.2)
    assert reward_parts(0.0, text, both) == {"accuracy": 0.0, "format": 0.5, "language": 0.2}
