"""Advantages against a plain loop, and what has no reward or no signal."""

import math
import statistics

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from shoestring.errors import ConfigError, NonFiniteError
from shoestring.rl.advantage import advantages

KINDS = ("grpo", "dr_grpo", "rloo")
TENTHS = st.integers(-20, 20).map(lambda n: n / 10)


def by_hand(rewards: list[float], kind: str) -> list[float]:
    if len(set(rewards)) < 2:
        return [0.0] * len(rewards)
    if kind == "rloo":
        return [r - (sum(rewards) - r) / (len(rewards) - 1) for r in rewards]
    scale = statistics.pstdev(rewards) if kind == "grpo" else 1.0
    return [(r - statistics.fmean(rewards)) / scale for r in rewards]


@pytest.mark.parametrize("kind", KINDS)
@given(groups=st.lists(st.lists(st.none() | TENTHS, min_size=5, max_size=5), min_size=1, max_size=4))
def test_as_by_hand(kind, groups):
    rows = [[math.nan if r is None else r for r in group] for group in groups]
    rewards_GX = torch.tensor(rows, dtype=torch.float64)
    result = advantages(rewards_GX, ~rewards_GX.isnan(), kind)
    for group, values, signal in zip(groups, result.values_GX, result.has_signal_G, strict=True):
        valid = [r for r in group if r is not None]
        expected = iter(by_hand(valid, kind))
        wanted = [0.0 if r is None else next(expected) for r in group]
        torch.testing.assert_close(values, torch.tensor(wanted, dtype=torch.float64), rtol=1e-9, atol=1e-12)
        assert bool(signal) == (len(set(valid)) > 1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("reward", [0.0, 1.0, 0.1, -7.3, 1e6])
def test_equal_rewards_give_exact_zeros(kind, reward):
    rewards_GX = torch.full((2, 7), reward)
    result = advantages(rewards_GX, torch.ones(2, 7, dtype=torch.bool), kind)
    assert torch.equal(result.values_GX, torch.zeros(2, 7))
    assert not result.has_signal_G.any()


def test_rounding_is_no_signal():
    """0.1 + 0.2 is not 0.3, and dividing that difference by its own deviation would make it 1."""
    rewards_GX = torch.tensor([[0.1 + 0.2, 0.3, 0.3]], dtype=torch.float64)
    result = advantages(rewards_GX, torch.ones(1, 3, dtype=torch.bool), "grpo")
    assert not result.values_GX.any()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [0, 1])
def test_too_few_valid_answers(kind, count):
    valid_GX = torch.arange(4)[None] < count
    result = advantages(torch.tensor([[1.0, math.nan, math.inf, 0.0]]), valid_GX, kind)
    assert not result.values_GX.any()
    assert not result.has_signal_G.any()


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_valid_reward_is_a_number(bad):
    with pytest.raises(NonFiniteError, match="not valid"):
        advantages(torch.tensor([[1.0, bad]]), torch.ones(1, 2, dtype=torch.bool), "dr_grpo")


def test_unknown_kind():
    with pytest.raises(ConfigError, match="'ppo' is none of grpo, dr_grpo, rloo"):
        advantages(torch.zeros(1, 2), torch.ones(1, 2, dtype=torch.bool), "ppo")


def test_dtype_is_the_rewards():
    assert (
        advantages(torch.eye(2), torch.ones(2, 2, dtype=torch.bool), "grpo").values_GX.dtype == torch.float32
    )
