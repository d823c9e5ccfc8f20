"""Advantages from the rewards of a group of answers: GRPO, Dr.GRPO, leave-one-out (RLOO)."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from shoestring.errors import ConfigError, NonFiniteError

AdvantageKind = Literal["grpo", "dr_grpo", "rloo"]
SAME_REWARD = 1e-6
"""Rewards of a group that differ by less are equal: rounding is not a preference."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Advantages:
    """Each answer's reward compared with those of its group."""

    values_GX: Tensor
    """One row per prompt, one column per answer; zero for an answer without a reward. Rewards' dtype."""
    has_signal_G: Tensor
    """True if the group has two different rewards; if not, its values are exactly zero."""


def advantages(rewards_GX: Tensor, valid_GX: Tensor, kind: AdvantageKind) -> Advantages:
    """Advantages of X answers to each of G prompts (X is the papers' G).

    `valid_GX` is False where there is no reward (a fault of the verifier, a rejected answer): the value
    there, even NaN, changes nothing for the others. Raises NonFiniteError for a valid reward that is NaN.
    """
    estimators = {"grpo": normalized, "dr_grpo": centered, "rloo": leave_one_out}
    if kind not in estimators:
        raise ConfigError(f"the advantage {kind!r} is none of {', '.join(estimators)}")
    assert rewards_GX.shape == valid_GX.shape
    assert valid_GX.dtype == torch.bool
    rewards = torch.where(valid_GX, rewards_GX, 0).double()
    if not torch.isfinite(rewards).all():
        raise NonFiniteError("a valid reward is NaN or infinite; mark the answer as not valid instead")
    highest_G = torch.where(valid_GX, rewards, -torch.inf).amax(1)
    lowest_G = torch.where(valid_GX, rewards, torch.inf).amin(1)
    has_signal_G = highest_G - lowest_G > SAME_REWARD
    values_GX = torch.where(valid_GX & has_signal_G[:, None], estimators[kind](rewards, valid_GX), 0)
    return Advantages(values_GX=values_GX.to(rewards_GX.dtype), has_signal_G=has_signal_G)


def centered(rewards_GX: Tensor, valid_GX: Tensor) -> Tensor:
    """Reward minus the group's mean (Dr.GRPO, arXiv 2503.20783 section 3.2; DeepSeek-V3.2, 2512.02556)."""
    count_G1 = valid_GX.sum(1, keepdim=True).clamp(min=1)
    mean_G1 = torch.where(valid_GX, rewards_GX, 0).sum(1, keepdim=True) / count_G1
    return torch.where(valid_GX, rewards_GX - mean_G1, 0)


def normalized(rewards_GX: Tensor, valid_GX: Tensor) -> Tensor:
    """Centered rewards over their standard deviation (GRPO, 2402.03300 section 4.1.2; R1, 2501.12948 eq. 3).

    The deviation is the population's, without an epsilon, so a group's values have root mean square 1. This
    weighs a problem by 1 / sqrt(p (1 - p)), p its share of right answers: very easy and very hard problems
    count most, the "difficulty bias" of Dr.GRPO.
    """
    values_GX = centered(rewards_GX, valid_GX)
    count_G1 = valid_GX.sum(1, keepdim=True).clamp(min=1)
    deviation_G1 = (values_GX.square().sum(1, keepdim=True) / count_G1).sqrt()
    return values_GX / deviation_G1.clamp(min=torch.finfo(values_GX.dtype).tiny)


def leave_one_out(rewards_GX: Tensor, valid_GX: Tensor) -> Tensor:
    """Reward minus the mean of the other answers (RLOO, arXiv 2402.14740 section 3.2): an unbiased baseline.

    It is n / (n - 1) times `centered`.
    """
    count_G1 = valid_GX.sum(1, keepdim=True, dtype=rewards_GX.dtype)
    return centered(rewards_GX, valid_GX) * (count_G1 / (count_G1 - 1).clamp(min=1))
