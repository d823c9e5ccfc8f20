"""A step's parts: answers compared within their group, and dealt to optimizer steps."""

from dataclasses import replace

import pytest

from shoestring.rl.rollout import Answer
from shoestring.rl.step import with_advantages
from shoestring.rl.update import deal
from shoestring.tasks.task import Example, Problem
from shoestring.train.parallel import Ranks

PROBLEM = Problem(task="coin", example=Example(key="1", question="?", answer=1))


def answer(reward: float | None = None, length: int = 3) -> Answer:
    return Answer(
        problem=PROBLEM,
        prompt_ids=(1, 2),
        token_ids=tuple(range(length)),
        logprobs=(0.0,) * length,
        text="",
        is_truncated=False,
        parts={} if reward is None else {"accuracy": reward, "format": 0.0},
    )


def test_an_answer_without_a_verdict_has_no_reward_and_no_advantage():
    [group] = with_advantages([[answer(1.0), answer(None), answer(0.0)]], "dr_grpo")
    assert [a.reward for a in group] == [1.0, None, 0.0]
    assert [a.advantage for a in group] == [0.5, 0.0, -0.5]


def test_a_group_of_equal_rewards_has_no_advantages():
    groups = with_advantages([[answer(1.0), answer(1.0)], [answer(0.0), answer(1.0)]], "grpo")
    assert [[a.advantage for a in group] for group in groups] == [[0.0, 0.0], [-1.0, 1.0]]
    assert with_advantages([], "grpo") == []


def test_a_model_reads_all_tokens_but_the_last():
    assert answer(length=3).num_inputs == 4


class SomeRanks(Ranks):
    """One of several processes whose numbers of answers are known."""

    def __init__(self, runtime, rank: int, counts: list[list[int]]) -> None:
        super().__init__(replace(runtime, rank=rank, world_size=len(counts[0])))
        self.counts = iter(counts)

    def each(self, value):
        counts = next(self.counts)
        assert counts[self.rank] == value
        return [float(count) for count in counts]


@pytest.mark.parametrize("num_steps", [1, 2, 3, 5, 40])
def test_dealing_does_not_depend_on_the_number_of_processes(runtime, num_steps):
    rounds = [[answer(length=n) for n in range(1, 8)], [answer(length=n) for n in range(8, 13)]]
    alone = deal(rounds, num_steps, Ranks(runtime))
    assert len(alone) == min(num_steps, 12)
    assert max(map(len, alone)) - min(map(len, alone)) <= 1
    counts = [[3, 4], [4, 1]]
    own_rounds = ([rounds[0][:3], rounds[1][:4]], [rounds[0][3:], rounds[1][4:]])
    first, second = (deal(own, num_steps, SomeRanks(runtime, i, counts)) for i, own in enumerate(own_rounds))
    for one, other, whole in zip(first, second, alone, strict=True):
        assert sorted(len(a.token_ids) for a in one + other) == sorted(len(a.token_ids) for a in whole)


def test_without_answers_there_is_one_empty_step(runtime):
    assert deal([[]], 4, Ranks(runtime)) == [[]]
