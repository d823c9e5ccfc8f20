"""Rewards of the answers that a policy sampled."""

from shoestring.rl.recipe import RewardConfig
from shoestring.rl.rewards import part_names, reward_parts
from shoestring.tasks.verify import Verdict


def verdict(reward, fault=None) -> Verdict:
    return Verdict(ticket=None, reward=reward, fault=fault)


def test_a_reward_has_the_parts_that_the_recipe_names():
    text = "<think>two and two</think>4"
    own = {"accuracy": verdict(1.0)}
    assert reward_parts(own, text, RewardConfig()) == {"accuracy": 1.0}
    both = RewardConfig(format=0.5, language="en", language_weight=0.2)
    parts = reward_parts({"accuracy": verdict(0.0)}, text, both)
    assert parts == {"accuracy": 0.0, "format": 0.5, "language": 0.2}
    assert part_names(both) == list(parts)


def test_a_fault_of_any_verifier_leaves_no_reward_and_what_does_not_apply_is_left_out():
    config = RewardConfig(functions=("r.py",), format=0.5)
    verdicts = {"accuracy": verdict(1.0), "functions": verdict(None)}
    assert reward_parts(verdicts, "4", config) == {"accuracy": 1.0, "format": 0.0}
    assert reward_parts(verdicts | {"functions": verdict(None, "timeout")}, "4", config) == {}
    nothing = {"accuracy": verdict(None), "functions": verdict(None)}
    assert reward_parts(nothing, "<think>a</think>b", config) == {}
    assert part_names(config) == ["accuracy", "format", "functions"]
