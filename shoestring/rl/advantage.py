"""Turns the rewards of a group of answers into advantages: GRPO, Dr.GRPO, leave-one-out."""

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
    """How much better each answer is than its group."""

    values_GN: Tensor
    """One row per prompt, one column per answer; zero for an answer without a reward. Rewards' dtype."""
    has_signal_G: Tensor
    """Whether the group has two different rewards; if not, its values are exactly zero."""


def advantages(rewards_GN: Tensor, valid_GN: Tensor, kind: AdvantageKind) -> Advantages:
    """Advantages of N answers to each of G prompts (N, the answers per prompt, is the papers' G).

    `valid_GN` is False where there is no reward (a fault of the verifier, a rejected answer): whatever is
    there, even NaN, changes nothing for the others. Raises NonFiniteError for a valid reward that is NaN.
    """
    siblings = {"grpo": normalized, "dr_grpo": centered, "rloo": leave_one_out}
    if kind not in siblings:
        raise ConfigError(f"the advantage {kind!r} is none of {', '.join(siblings)}")
    assert rewards_GN.shape == valid_GN.shape
    assert valid_GN.dtype == torch.bool
    rewards = torch.where(valid_GN, rewards_GN, 0).double()
    if not torch.isfinite(rewards).all():
        raise NonFiniteError("a valid reward is NaN or infinite; mark the answer as not valid instead")
    highest_G = torch.where(valid_GN, rewards, -torch.inf).amax(1)
    lowest_G = torch.where(valid_GN, rewards, torch.inf).amin(1)
    has_signal_G = highest_G - lowest_G > SAME_REWARD
    values_GN = siblings[kind](rewards, valid_GN)
    kept_GN = valid_GN & has_signal_G[:, None]
    return Advantages(
        values_GN=torch.where(kept_GN, values_GN, 0).to(rewards_GN.dtype), has_signal_G=has_signal_G
    )


def centered(rewards_GN: Tensor, valid_GN: Tensor) -> Tensor:
    """Reward minus the group's mean (Dr.GRPO, arXiv 2503.20783 section 3.2; DeepSeek-V3.2, 2512.02556)."""
    count_G1 = valid_GN.sum(1, keepdim=True).clamp(min=1)
    mean_G1 = torch.where(valid_GN, rewards_GN, 0).sum(1, keepdim=True) / count_G1
    return torch.where(valid_GN, rewards_GN - mean_G1, 0)


def normalized(rewards_GN: Tensor, valid_GN: Tensor) -> Tensor:
    """... over the group's standard deviation (GRPO, arXiv 2402.03300 section 4.1.2; R1, 2501.12948 eq. 3).

    The deviation is the population's, without an epsilon, so a group's values have root mean square 1. This
    weighs a problem by 1 / sqrt(p (1 - p)), p its share of right answers: very easy and very hard problems
    count most, the "difficulty bias" of Dr.GRPO.
    """
    values_GN = centered(rewards_GN, valid_GN)
    count_G1 = valid_GN.sum(1, keepdim=True).clamp(min=1)
    deviation_G1 = (values_GN.square().sum(1, keepdim=True) / count_G1).sqrt()
    return values_GN / deviation_G1.clamp(min=torch.finfo(values_GN.dtype).tiny)


def leave_one_out(rewards_GN: Tensor, valid_GN: Tensor) -> Tensor:
    """Reward minus the mean of the other answers (RLOO, arXiv 2402.14740 section 3.2): an unbiased baseline.

    It is n / (n - 1) times `centered`.
    """
    count_G1 = valid_GN.sum(1, keepdim=True, dtype=rewards_GN.dtype)
    return centered(rewards_GN, valid_GN) * (count_G1 / (count_G1 - 1).clamp(min=1))
