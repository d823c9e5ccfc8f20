"""One step of learning from preferences: the loss of its pairs or answers, and the update."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from shoestring.model.transformer import Transformer
from shoestring.preferences.data import AnswerBatch
from shoestring.preferences.logps import answer_logprobs
from shoestring.preferences.losses import (
    Answers,
    PreferenceLossConfig,
    dpo,
    ipo,
    kto,
    orpo,
    rewards,
    simpo,
)

PAIR_LOSSES = {"dpo": dpo, "ipo": ipo, "simpo": simpo}


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """Values of a whole step that the loss of each of its micro-batches needs."""

    units: int
    """Pairs, or answers that are judged one by one."""
    mean_tokens: float
    """Mean length of the chosen answers, for ORPO."""
    kl: Tensor
    """KTO's point of comparison; else 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Losses of a micro-batch's B units, and rewards and log-probabilities of its R answers."""

    loss_B: Tensor
    rewards_R: Tensor
    logp_R: Tensor
    is_chosen_R: Tensor
    is_right_B: Tensor
    """Whether the chosen answer has the higher reward; of a single one, if it is on its side of the KL."""


def judge(
    model: Transformer,
    batch: AnswerBatch,
    reference: Tensor,
    config: PreferenceLossConfig,
    totals: Totals,
) -> Outcome:
    """Losses of a micro-batch, with gradient; `reference` has the log-probability of every answer."""
    logp_R = answer_logprobs(model, batch.rows)
    ref_logp_R = reference[batch.numbers].to(logp_R.device) if config.needs_reference else None
    answers = Answers(logp_R, batch.tokens_B, ref_logp_R)
    rewards_R = rewards(answers, config)
    if config.loss_type == "kto":
        loss_B = kto(answers, batch.is_chosen_B, totals.kl, config)
        is_right_B = (rewards_R > config.strength * totals.kl) == batch.is_chosen_B
    else:
        half = len(logp_R) // 2
        chosen, rejected = answers.part(slice(half)), answers.part(slice(half, None))
        if config.loss_type == "orpo":
            loss_B = orpo(chosen, rejected, config, mean_tokens=totals.mean_tokens)
        else:
            loss_B = PAIR_LOSSES[config.loss_type](chosen, rejected, config)
        better_B, worse_B = rewards_R.chunk(2)
        is_right_B = better_B > worse_B
    return Outcome(
        loss_B=loss_B,
        rewards_R=rewards_R,
        logp_R=logp_R.detach(),
        is_chosen_R=batch.is_chosen_B,
        is_right_B=is_right_B,
    )


def figures(parts: Sequence[Outcome]) -> dict[str, float]:
    """TRL's figures of a step, from all of its micro-batches."""
    whole = {
        name: torch.cat([getattr(part, name) for part in parts]).detach().float()
        for name in ("loss_B", "rewards_R", "logp_R", "is_right_B")
    }
    is_chosen_R = torch.cat([part.is_chosen_R for part in parts])
    row = {"loss": float(whole["loss_B"].mean()), "rewards/accuracies": float(whole["is_right_B"].mean())}
    for name, mask_R in (("chosen", is_chosen_R), ("rejected", ~is_chosen_R)):
        if bool(mask_R.any()):
            row[f"rewards/{name}"] = float(whole["rewards_R"][mask_R].mean())
            row[f"logps/{name}"] = float(whole["logp_R"][mask_R].mean())
    if "rewards/chosen" in row and "rewards/rejected" in row:
        row["rewards/margins"] = row["rewards/chosen"] - row["rewards/rejected"]
    return row
