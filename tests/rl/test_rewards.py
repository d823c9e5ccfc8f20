"""Rewards of the answers that a policy sampled."""

import math

import pytest

from shoestring.errors import ConfigError
from shoestring.rl.recipe import GRPOConfig, RewardConfig, TaskShare
from shoestring.rl.rewards import part_names, reward_parts, with_preferences
from shoestring.tasks.task import Example, Problem
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


class Scorer:
    """A reward model whose score is the number of words of the last reply, less three."""

    def __init__(self):
        self.talks = []

    def score(self, talks):
        self.talks += talks
        return [len(talk[-1]["content"].split()) - 3.0 for talk in talks]


def problem(task: str, question="hi") -> Problem:
    return Problem(task=task, example=Example(key="k", question=question, answer=None))


ANSWERS = [
    (problem("sums"), "<think>a long thought here</think>4", {"accuracy": 1.0}),
    (problem("talk"), "<think>hm hm hm</think>good day to you", {"accuracy": 0.0, "format": 0.1}),
    (problem("talk", [{"role": "user", "content": "a"}]), "no", {}),
]


def test_a_preference_is_added_to_the_program_s_reward():
    scorer = Scorer()
    config = RewardConfig(model="m", model_weight=0.5)
    rewards = with_preferences(ANSWERS, scorer, config)
    assert [talk[-1]["content"] for talk in scorer.talks] == ["4", "good day to you", "no"]  # no thinking
    assert scorer.talks[2][0] == {"role": "user", "content": "a"}
    half = [0.5 / (1 + math.exp(-score)) for score in (-2.0, 1.0, -2.0)]
    assert rewards[0] == {"accuracy": 1.0, "preference": pytest.approx(half[0])}
    assert rewards[1] == {"accuracy": 0.0, "format": 0.1, "preference": pytest.approx(half[1])}
    assert rewards[2] == {"preference": pytest.approx(half[2])}
    assert part_names(config) == ["accuracy", "preference"]


def test_in_tasks_of_its_own_it_takes_the_place_of_the_program():
    scorer = Scorer()
    config = RewardConfig(model="m", model_tasks=("talk",), format=0.1)
    rewards = with_preferences(ANSWERS, scorer, config)
    assert len(scorer.talks) == 2
    assert rewards[0] == ANSWERS[0][2]
    assert rewards[1] == {"format": 0.1, "preference": pytest.approx(1 / (1 + math.exp(-1.0)))}
    assert rewards[2].keys() == {"format", "preference"}


@pytest.mark.parametrize("score", [1e6, -1e6])
def test_extreme_scores_stay_chances(score):
    scorer = Scorer()
    scorer.score = lambda talks: [score for _ in talks]
    ((_, reward),) = [with_preferences(ANSWERS[:1], scorer, RewardConfig(model="m"))[0].items()]
    assert reward[1] in (0.0, 1.0) or reward[1] < 1e-300


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"model_tasks": ("talk",)}, "needs a reward model"),
        ({"model": "m", "model_weight": 0.0}, "model_weight"),
        ({"model": "m", "model_steps": -1}, "model_steps"),
        ({"model": "m", "model_tasks": ("other",)}, "names 'other'; the tasks are countdown"),
    ],
)
def test_wrong_settings_are_named(settings, words):
    with pytest.raises(ConfigError, match=words):
        GRPOConfig(model="a", tasks=(TaskShare(name="countdown"),), reward=RewardConfig(**settings))
