"""Outcomes of a micro-batch of preferences, and the figures of a step that they add up to."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from shoestring.cost.step import Flops


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Losses of a micro-batch's B units, with gradient, and rewards of its R answers, without."""

    loss_B: Tensor
    rewards_R: Tensor
    is_chosen_R: Tensor
    is_right_B: Tensor
    """Whether the chosen answer has the higher reward; of a single one, if it is on its side of the KL."""
    logp_R: Tensor | None = None
    """Log-probabilities of the answers; None from a reward model."""
    more: Mapping[str, float] = field(default_factory=dict)
    """Further figures of the whole step."""
    flops: Flops = field(default_factory=dict)
    """FLOPs of learning from the micro-batch."""


Judge = Callable[[Sequence[int]], Iterator[Outcome]]
"""Goes through the units of a step: an outcome for each micro-batch."""


def figures(parts: Sequence[Outcome]) -> dict[str, float]:
    """The figures of a step under TRL's names, from all of its micro-batches."""
    is_chosen_R = torch.cat([part.is_chosen_R for part in parts])
    row = {
        "loss": _mean(torch.cat([part.loss_B for part in parts])),
        "rewards/accuracies": _mean(torch.cat([part.is_right_B for part in parts])),
        **parts[-1].more,
    }
    values = {"rewards": torch.cat([part.rewards_R for part in parts])}
    logps = [part.logp_R for part in parts if part.logp_R is not None]
    if logps:
        values["logps"] = torch.cat(logps)
    for side, mask_R in (("chosen", is_chosen_R), ("rejected", ~is_chosen_R)):
        if bool(mask_R.any()):
            row |= {f"{name}/{side}": _mean(value_R[mask_R]) for name, value_R in values.items()}
    if "rewards/chosen" in row and "rewards/rejected" in row:
        row["rewards/margins"] = row["rewards/chosen"] - row["rewards/rejected"]
    return row


def _mean(values: Tensor) -> float:
    return float(values.detach().float().mean())
