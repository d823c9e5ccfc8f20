"""Losses of preferences as pure functions: DPO, IPO, SimPO and ORPO on pairs, KTO on single answers.

All take log-probabilities of whole answers and return one loss for each pair or answer (B,), in nats; the
loss of a step is their mean. Settings have TRL's names, and losses and gradients are TRL's to rounding.
"""

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from shoestring.errors import ConfigError

LossType = Literal["dpo", "ipo", "simpo", "kto", "orpo"]
BETA = {"dpo": 0.1, "ipo": 0.1, "simpo": 2.0, "kto": 0.1, "orpo": 0.1}
"""The default of `beta`: TRL's, but for SimPO, whose paper has 2.0 to 2.5."""
CERTAIN = -1e-6
"""Largest mean log-probability of an answer in ORPO: at 0 its odds would be infinite."""
WITH_REFERENCE = ("dpo", "ipo", "kto")
_TAKEN_BY = {
    "label_smoothing": ("dpo", "simpo"),
    "simpo_gamma": ("simpo",),
    "desirable_weight": ("kto",),
    "undesirable_weight": ("kto",),
}


@dataclass(frozen=True, kw_only=True)
class PreferenceLossConfig:
    """The objective of learning from preferences; see the functions of these names."""

    loss_type: LossType = "dpo"
    beta: float | None = None
    """Strength of the hold on the reference in DPO, KTO and IPO (its tau), of the margin in SimPO, and of the
    odds ratio in ORPO (its lambda). None: 0.1, in SimPO 2."""
    label_smoothing: float = 0.0
    """Share of the pairs that are taken to be labeled the wrong way round (DPO, SimPO)."""
    simpo_gamma: float = 1.0
    """SimPO's target margin (its paper: 0.3 to 1.6)."""
    desirable_weight: float = 1.0
    """KTO's weight of good answers. Times their count it is best 1 to 4/3 of the bad ones' (section 4.2)."""
    undesirable_weight: float = 1.0
    """KTO's weight of bad answers."""

    def __post_init__(self) -> None:
        if self.loss_type not in get_args(LossType):
            types = ", ".join(get_args(LossType))
            raise ConfigError(f"loss.loss_type = {self.loss_type!r} is none of {types}")
        if self.beta is not None and not 0.0 < self.beta < math.inf:
            raise ConfigError(f"loss.beta = {self.beta} is not a number over 0")
        if not 0.0 <= self.label_smoothing < 0.5:
            raise ConfigError(
                f"loss.label_smoothing = {self.label_smoothing} is not at least 0 and under 0.5"
            )
        for name in ("simpo_gamma", "desirable_weight", "undesirable_weight"):
            if not 0.0 <= getattr(self, name) < math.inf:
                raise ConfigError(f"loss.{name} = {getattr(self, name)} is not a number of at least 0")
        for name, losses in _TAKEN_BY.items():
            if self.loss_type not in losses and getattr(self, name) != getattr(type(self), name):
                raise ConfigError(
                    f"loss.{name} changes {' and '.join(losses)} only; leave it out with "
                    f"loss.loss_type = {self.loss_type!r}"
                )

    @property
    def strength(self) -> float:
        """`beta`, or the loss's own where it is None."""
        return BETA[self.loss_type] if self.beta is None else self.beta

    @property
    def needs_reference(self) -> bool:
        """Return whether the loss compares with the model that the run starts from."""
        return self.loss_type in WITH_REFERENCE


class Answers(NamedTuple):
    """Log-probabilities of B answers under the model in training and under the reference."""

    logp_B: Tensor
    """The sum over an answer's tokens, its end token included."""
    tokens_B: Tensor
    """Number of its tokens."""
    ref_logp_B: Tensor | None = None
    """The sum under the reference; None for a loss without one."""

    def part(self, rows: slice) -> "Answers":
        """Some of the answers."""
        ref_logp_B = None if self.ref_logp_B is None else self.ref_logp_B[rows]
        return Answers(self.logp_B[rows], self.tokens_B[rows], ref_logp_B)

    @property
    def log_ratio_B(self) -> Tensor:
        """log(policy / reference)."""
        assert self.ref_logp_B is not None, "this loss needs the reference's log-probabilities"
        return self.logp_B - self.ref_logp_B

    @property
    def mean_logp_B(self) -> Tensor:
        """The mean over an answer's tokens."""
        return self.logp_B / self.tokens_B


def dpo(chosen: Answers, rejected: Answers, config: PreferenceLossConfig) -> Tensor:
    """Direct preference optimization: -log sigmoid(beta (chosen - rejected log-ratio)) (B,).

    arXiv 2305.18290, section 4, eq. 7. `label_smoothing` is that of conservative DPO (Mitchell 2023, eq. 3).
    """
    margin_B = config.strength * (chosen.log_ratio_B - rejected.log_ratio_B)
    return _smoothed(margin_B, config.label_smoothing)


def ipo(chosen: Answers, rejected: Answers, config: PreferenceLossConfig) -> Tensor:
    """Identity preference optimization: (log-ratio margin - 1 / (2 beta))^2, least at that margin (B,).

    arXiv 2310.12036, section 5.2, eq. 17, with the mean log-ratio of a token in place of the sum, as in TRL:
    the square would otherwise grow with the answers' lengths.
    """
    chosen_B, rejected_B = (each.log_ratio_B / each.tokens_B for each in (chosen, rejected))
    return (chosen_B - rejected_B - 1 / (2 * config.strength)).square()


def simpo(chosen: Answers, rejected: Answers, config: PreferenceLossConfig) -> Tensor:
    """Simple preference optimization: -log sigmoid(beta (margin of mean log-probabilities) - gamma) (B,).

    arXiv 2405.14734, section 2, eq. 6: no reference, and long answers have no advantage.
    """
    margin_B = config.strength * (chosen.mean_logp_B - rejected.mean_logp_B) - config.simpo_gamma
    return _smoothed(margin_B, config.label_smoothing)


def orpo(chosen: Answers, rejected: Answers, config: PreferenceLossConfig, *, mean_tokens: float) -> Tensor:
    """Odds ratio preference optimization: the chosen answer's cross-entropy and beta times the odds' (B,).

    arXiv 2403.07691, section 4.2, eq. 6 and 7; no reference. `mean_tokens` is the mean length of the whole
    step's chosen answers: divided by it, the cross-entropies' mean over pairs is their mean over tokens.
    """
    return -chosen.logp_B / mean_tokens - config.strength * logsigmoid(log_odds_ratio(chosen, rejected))


def log_odds_ratio(chosen: Answers, rejected: Answers) -> Tensor:
    """log(odds(chosen) / odds(rejected)) odds p / (1 - p) of the mean token's probability (eq. 3-5)."""
    chosen_B, rejected_B = (_log_odds(each.mean_logp_B) for each in (chosen, rejected))
    return chosen_B - rejected_B


def kto(answers: Answers, is_desirable_B: Tensor, kl: Tensor, config: PreferenceLossConfig) -> Tensor:
    """Kahneman-Tversky optimization: weight times 1 - sigmoid(+-beta (log-ratio - kl)) (B,).

    arXiv 2402.01306, section 4.1, eq. 7: answers are good or bad one by one, and `kl` (from `kl_estimate`, a
    scalar without gradient) is the point that they are compared with.
    """
    gain_B = config.strength * (answers.log_ratio_B - kl)
    good_B = config.desirable_weight * torch.sigmoid(-gain_B)
    return torch.where(is_desirable_B, good_B, config.undesirable_weight * torch.sigmoid(gain_B))


def kl_estimate(log_ratio_B: Tensor) -> Tensor:
    """KTO's estimate of KL(policy || reference): the mean log-ratio of mismatched answers, at least 0.

    Each is another prompt's answer (section 4.1: the next one's in the batch). A scalar without gradient.
    """
    return log_ratio_B.detach().mean().clamp(min=0)


def rewards(answers: Answers, config: PreferenceLossConfig) -> Tensor:
    """The implicit reward of each answer (B,), without gradient.

    beta times its log-ratio (DPO section 4), or times its mean log-probability where there is no reference.
    """
    value_B = answers.log_ratio_B if config.needs_reference else answers.mean_logp_B
    return config.strength * value_B.detach()


def _smoothed(margin_B: Tensor, label_smoothing: float) -> Tensor:
    return -(1 - label_smoothing) * logsigmoid(margin_B) - label_smoothing * logsigmoid(-margin_B)


def _log_odds(mean_logp_B: Tensor) -> Tensor:
    log_p_B = mean_logp_B.clamp(max=CERTAIN)
    return log_p_B - torch.log(-torch.expm1(log_p_B))
