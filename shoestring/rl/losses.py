"""Policy losses as pure functions: GRPO, Dr.GRPO, DAPO, GSPO; clipping, KL, off-policy sequence masking."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from shoestring.errors import ConfigError, NonFiniteError

LOG_RATIO_LIMIT = 20.0
"""A ratio of 5e8: far outside any clip range, and its exponential is still a float32."""


@dataclass(frozen=True, kw_only=True)
class PolicyLossConfig:
    """The policy's objective; by default Dr.GRPO with clip-higher and without a KL term."""

    loss_type: Literal["grpo", "dr_grpo", "dapo", "gspo"] = "dr_grpo"
    """Weights of the tokens, and the ratio that is clipped; see the functions of these names."""
    epsilon_low: float = 0.2
    """Ratios under 1 - epsilon_low gain nothing more (PPO's and DAPO's 0.2; GSPO's section 5.1: 3e-4)."""
    epsilon_high: float = 0.28
    """Ratios over 1 + epsilon_high gain nothing more (clip-higher, DAPO section 3.1; GSPO 4e-4; R1: 10)."""
    beta: float = 0.0
    """Weight of the KL to the reference (R1-Zero: 0.001; DAPO section 2.3 and Dr.GRPO: 0)."""
    use_bias_correction_kl: bool = True
    """Weigh the KL estimate by the ratio, so its gradient is the KL's (V3.2 section 3.1); else GRPO's k3."""
    off_policy_mask_threshold: float | None = None
    """Leave out bad answers whose mean log(old/new) is over this (V3.2 section 3.1, without a value)."""
    mask_truncated_completions: bool = False
    """Leave answers cut at the length limit out of the loss (overlong filtering, DAPO section 3.4)."""
    negative_scale: float = 1.0
    """Factor on negative advantages. Not from a paper: our own experiment used 0.3, on one seed."""

    def __post_init__(self) -> None:
        if self.loss_type not in OBJECTIVES:
            raise ConfigError(f"loss.loss_type = {self.loss_type!r} is none of {', '.join(OBJECTIVES)}")
        for name in ("epsilon_low", "epsilon_high"):
            if not 0.0 < getattr(self, name) < math.inf:
                raise ConfigError(f"loss.{name} = {getattr(self, name)} is not a number over 0")
        for name in ("beta", "negative_scale"):
            if not 0.0 <= getattr(self, name) < math.inf:
                raise ConfigError(f"loss.{name} = {getattr(self, name)} is not a number of at least 0")
        threshold = self.off_policy_mask_threshold
        if threshold is not None and not 0.0 <= threshold < math.inf:
            raise ConfigError(f"loss.off_policy_mask_threshold = {threshold} is not a number of at least 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class Denominators:
    """Divisors of a whole step's sums; integers, so that processes can add theirs."""

    sequences: int
    """Answers with at least one token in the loss; 0 means there is nothing to learn: skip the update."""
    tokens: int
    """Tokens in the loss."""
    max_tokens: int
    """The longest that an answer may become."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyLoss:
    """A micro-batch's share of a step's figures; those of all micro-batches add up to them."""

    loss: Tensor
    """The loss to differentiate; a scalar, as are the others, which have no gradient."""
    clip_share: Tensor
    """Share of tokens without a gradient because their ratio (GSPO: their answer's) was clipped."""
    kl: Tensor
    """Mean over tokens of the KL estimate to the reference, as the loss takes it; 0 without a reference."""
    drift: Tensor
    """Mean over tokens of k3 of the KL from the policy that sampled to this one."""
    off_policy_share: Tensor
    """Share of answers that `off_policy_mask_threshold` left out."""


class Terms(NamedTuple):
    """The parts in which objectives differ: the ratio to clip, and each token's weight in the mean."""

    log_ratio_BT: Tensor
    weight_BT: Tensor


def loss_mask(mask_BT: Tensor, *, valid_B: Tensor, truncated_B: Tensor, config: PolicyLossConfig) -> Tensor:
    """Mask (B, T) of the tokens in the loss: answers with a reward and, as configured, only complete ones.

    The other answers are in no denominator either.
    """
    included_B = valid_B & ~truncated_B if config.mask_truncated_completions else valid_B
    return mask_BT & included_B[:, None]


def denominators(lengths: Iterable[int], max_tokens: int) -> Denominators:
    """Denominators of a step whose answers have these numbers of tokens in the loss."""
    counts = [length for length in lengths if length]
    return Denominators(sequences=len(counts), tokens=sum(counts), max_tokens=max_tokens)


def policy_loss(
    logp_BT: Tensor,
    old_logp_BT: Tensor,
    ref_logp_BT: Tensor | None,
    advantages_B: Tensor,
    mask_BT: Tensor,
    config: PolicyLossConfig,
    *,
    denominators: Denominators,
) -> PolicyLoss:
    """The clipped objective of B answers, negated, plus beta times the KL to the reference.

    `logp_BT` are log-probabilities of the sampled tokens under the policy in training, `old_logp_BT` under
    the policy that sampled them, `ref_logp_BT` under the reference. Only values where `mask_BT` (bool, from
    `loss_mask`) is True have an effect. `denominators` are those of the whole step. Raises NonFiniteError if
    a value in the mask is NaN or infinite, ConfigError for a KL without a reference.
    """
    assert logp_BT.shape == old_logp_BT.shape == mask_BT.shape
    assert mask_BT.dtype == torch.bool
    if config.beta and ref_logp_BT is None:
        raise ConfigError(f"loss.beta = {config.beta} needs log-probabilities of a reference")
    tokens, sequences = max(denominators.tokens, 1), max(denominators.sequences, 1)
    logp_BT = _checked("the policy's log-probabilities", logp_BT, mask_BT)
    old_BT = _checked("the sampling policy's log-probabilities", old_logp_BT.detach(), mask_BT)
    log_ratio_BT = logp_BT - old_BT
    advantages_B1 = _checked("the advantages", advantages_B, mask_BT.any(1))[:, None]
    terms = OBJECTIVES[config.loss_type](log_ratio_BT, mask_BT, denominators)

    on_policy_B1 = _on_policy(log_ratio_BT, advantages_B1, mask_BT, config.off_policy_mask_threshold)
    scale_B1 = on_policy_B1 * torch.where(advantages_B1 < 0, config.negative_scale, 1.0)
    ratio_BT = _exp(terms.log_ratio_BT)
    bounded_BT = ratio_BT.clamp(1 - config.epsilon_low, 1 + config.epsilon_high)
    gain_BT, clipped_gain_BT = (r * advantages_B1 * scale_B1 for r in (ratio_BT, bounded_BT))
    loss = -(torch.minimum(gain_BT, clipped_gain_BT) * terms.weight_BT).sum()

    kl = torch.zeros((), device=logp_BT.device)
    if ref_logp_BT is not None:
        ref_BT = _checked("the reference's log-probabilities", ref_logp_BT.detach(), mask_BT)
        kl_BT = k3(logp_BT, ref_BT)
        if config.use_bias_correction_kl:
            kl_BT = unbiased_kl(logp_BT, log_ratio_BT, ref_BT)
        if config.beta:
            loss = loss + config.beta * (kl_BT * terms.weight_BT).sum()
        kl = (kl_BT.detach() * mask_BT).sum() / tokens
    return PolicyLoss(
        loss=loss,
        clip_share=((clipped_gain_BT < gain_BT) & mask_BT).sum() / tokens,
        kl=kl,
        drift=(k3(torch.zeros_like(log_ratio_BT), log_ratio_BT.detach()) * mask_BT).sum() / tokens,
        off_policy_share=(~on_policy_B1[:, 0] & mask_BT.any(1)).sum() / sequences,
    )


def grpo(log_ratio_BT: Tensor, mask_BT: Tensor, whole: Denominators) -> Terms:
    """Mean over answers of the mean over their tokens (GRPO, arXiv 2402.03300 eq. 3; R1, 2501.12948 eq. 1).

    A token of a long answer weighs less: long wrong answers are punished little, "length bias".
    """
    return Terms(log_ratio_BT, mask_BT.to(log_ratio_BT.dtype) / _length(mask_BT) / max(whole.sequences, 1))


def dr_grpo(log_ratio_BT: Tensor, mask_BT: Tensor, whole: Denominators) -> Terms:
    """Mean over answers of the sum over tokens, by a constant (Dr.GRPO, arXiv 2503.20783 section 3.2).

    The constant is the longest length allowed, so every token of every step weighs the same.
    """
    return Terms(log_ratio_BT, mask_BT.to(log_ratio_BT.dtype) / (whole.max_tokens * max(whole.sequences, 1)))


def dapo(log_ratio_BT: Tensor, mask_BT: Tensor, whole: Denominators) -> Terms:
    """Mean over all tokens of the whole step (token-level loss, DAPO, arXiv 2503.14476 section 3.3)."""
    return Terms(log_ratio_BT, mask_BT.to(log_ratio_BT.dtype) / max(whole.tokens, 1))


def gspo(log_ratio_BT: Tensor, mask_BT: Tensor, whole: Denominators) -> Terms:
    """One ratio per answer, the geometric mean of its tokens' (GSPO, arXiv 2507.18071 section 4.1, eq. 5-7).

    The clip ranges belong to this mean: a thousand times narrower than for tokens.
    """
    mean_log_ratio_B1 = (log_ratio_BT * mask_BT).sum(1, keepdim=True) / _length(mask_BT)
    return grpo(mean_log_ratio_B1.expand_as(log_ratio_BT), mask_BT, whole)


def k3(logp_BT: Tensor, ref_logp_BT: Tensor) -> Tensor:
    """Estimate of KL(policy || reference), never negative: r - log r - 1, r = reference/policy (GRPO eq. 4).

    Its mean over the policy's own samples is that KL; its gradient's mean is of KL(reference || policy).
    """
    log_r_BT = (ref_logp_BT - logp_BT).clamp(max=LOG_RATIO_LIMIT)
    return log_r_BT.exp() - log_r_BT - 1


def unbiased_kl(logp_BT: Tensor, log_ratio_BT: Tensor, ref_logp_BT: Tensor) -> Tensor:
    """k3 times the ratio to the sampling policy (DeepSeek-V3.2, arXiv 2512.02556 section 3.1).

    Its mean over the sampling policy's tokens is KL(policy || reference), and so is its gradient's.
    """
    return _exp(log_ratio_BT) * k3(logp_BT, ref_logp_BT)


OBJECTIVES = {"grpo": grpo, "dr_grpo": dr_grpo, "dapo": dapo, "gspo": gspo}


def _on_policy(log_ratio_BT: Tensor, advantages_B1: Tensor, mask_BT: Tensor, delta: float | None) -> Tensor:
    """Off-policy sequence mask (V3.2 section 3.1): False for a bad answer that the policy has moved from."""
    if delta is None:
        return torch.ones_like(advantages_B1, dtype=torch.bool)
    moved_B1 = -(log_ratio_BT.detach() * mask_BT).sum(1, keepdim=True) / _length(mask_BT)
    return (advantages_B1 >= 0) | (moved_B1 <= delta)


def _length(mask_BT: Tensor) -> Tensor:
    return mask_BT.sum(1, keepdim=True).clamp(min=1)


def _exp(log_ratio_BT: Tensor) -> Tensor:
    return log_ratio_BT.clamp(max=LOG_RATIO_LIMIT).exp()


def _checked(name: str, values: Tensor, mask: Tensor) -> Tensor:
    """The values with zeros where the mask is False, even for a NaN; NonFiniteError for one in the mask."""
    values = torch.where(mask, values, 0)
    if not torch.isfinite(values).all():
        raise NonFiniteError(f"{name} are NaN or infinite where an answer is; the update was not made")
    return values
