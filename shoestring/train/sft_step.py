"""One update on padded conversations of which some tokens are learned: loss, check, clip, update."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from shoestring import kernels
from shoestring.data.conversations import Block
from shoestring.model.moe import Routing
from shoestring.model.transformer import Transformer
from shoestring.train.losses import Losses, max_violation, move_balance_bias, shift_left
from shoestring.train.optim import Optimizers
from shoestring.train.step import take_step


@dataclass(frozen=True, kw_only=True)
class SFTStep:
    """What the schedule says about this step."""

    lr_share: float
    mtp_weight: float
    """0 leaves MTP modules out altogether."""
    bias_speed: float
    balance_alpha: float
    clip: float


@dataclass(frozen=True, kw_only=True)
class SFTStats:
    """Means over what the step's loss counts; nll in nats per learned token."""

    nll: float
    mtp_nll: float
    balance: float
    grad_norm: float
    """Before clipping."""
    max_violation: float | None
    """Mean over MoE layers; None without any."""


@dataclass(frozen=True, kw_only=True)
class Counts:
    """What a whole batch's sums are divided by, so that its blocks add up to its means."""

    rows: int
    learned: tuple[int, ...]
    """Learned targets, and those of each MTP depth."""


def count(blocks: Iterable[Block], depths: int) -> Counts:
    """The denominators of a batch for a model with `depths` MTP modules."""
    rows, learned = 0, [0] * (1 + depths)
    for block in blocks:
        rows += len(block.inputs)
        for depth in range(1 + depths):
            learned[depth] += int(block.learned[:, depth:].sum())
    return Counts(rows=rows, learned=tuple(learned))


def conversation_losses(
    model: Transformer, block: Block, counts: Counts, *, mtp_weight: float, balance_alpha: float
) -> Losses:
    """A block's share of its batch's losses (V3 eq. 24-25, 17-20); padding counts in none of them.

    MTP modules read the real next tokens, learned or not, as they will when they draft.
    """
    ids_BT, targets_BT = (torch.from_numpy(a).to(model.device) for a in (block.inputs, block.targets))
    aims_BT = targets_BT.masked_fill(~torch.from_numpy(block.learned).to(model.device), -1)
    features = model.features(ids_BT)
    loss, nll = _mean_nll(model, features.hidden_BTD, aims_BT, counts.learned[0])
    routings = dict(features.routings)
    mtp_nll = torch.zeros((), device=nll.device)
    depths = model.config.num_nextn_predict_layers if mtp_weight else 0
    hidden_BTD = features.hidden_BTD
    for depth in range(depths):
        ahead_BT = shift_left(targets_BT, depth).clamp(min=0)
        predicted = model.mtp_features(hidden_BTD, ahead_BT, depth)
        hidden_BTD = predicted.hidden_BTD
        further_BT = shift_left(aims_BT, depth + 1)
        part, part_nll = _mean_nll(model, hidden_BTD, further_BT, counts.learned[depth + 1])
        loss, mtp_nll = loss + mtp_weight / depths * part, mtp_nll + part_nll / depths
        routings |= predicted.routings
    real_BT = targets_BT >= 0
    balance = torch.zeros((), device=nll.device)
    if balance_alpha:
        balance = sum((conversation_balance(r, real_BT) for r in routings.values()), balance) / counts.rows
        loss = loss + balance_alpha * balance
    loads = {index: _load(routing, real_BT) for index, routing in routings.items()}
    return Losses(loss, nll, mtp_nll, balance.detach(), loads)


def conversation_balance(routing: Routing, real_BT: Tensor) -> Tensor:
    """`losses.sequence_balance` of rows that end where `real_BT` does, summed over rows."""
    experts_BTK = routing.experts_NK.unflatten(0, real_BT.shape)
    scores_BTE = routing.scores_NE.unflatten(0, real_BT.shape)
    tokens_B1 = real_BT.sum(1, keepdim=True)
    count, chosen = scores_BTE.shape[-1], experts_BTK.shape[-1]
    rows_BE = torch.zeros(len(real_BT), count, device=scores_BTE.device)
    seen_BTK = real_BT[..., None].expand_as(experts_BTK).to(rows_BE.dtype)
    rows_BE.scatter_add_(1, experts_BTK.flatten(1), seen_BTK.flatten(1))
    shares_BTE = scores_BTE / scores_BTE.sum(-1, keepdim=True) * real_BT[..., None]
    affinity_BE = shares_BTE.sum(1) / tokens_B1
    return (rows_BE * (count / (chosen * tokens_B1)) * affinity_BE).sum()


def sft_step(model: Transformer, optimizers: Optimizers, blocks: Sequence[Block], step: SFTStep) -> SFTStats:
    """Train on the blocks of one batch; how it was cut into them changes nothing but memory.

    Raises NonFiniteError, with weights, moments and bias untouched, if loss or gradient is not finite.
    """
    optimizers.zero_grad()
    counts = count(blocks, model.config.num_nextn_predict_layers)
    sums = torch.zeros(3)
    loads: dict[int, Tensor] = {}
    for block in blocks:
        losses = conversation_losses(
            model, block, counts, mtp_weight=step.mtp_weight, balance_alpha=step.balance_alpha
        )
        losses.total.backward()
        sums += torch.stack((losses.nll, losses.mtp_nll, losses.balance)).cpu()
        for layer, load_E in losses.loads.items():
            loads[layer] = loads[layer] + load_E if layer in loads else load_E
    grad_norm = take_step(model, optimizers, sums, clip=step.clip, lr_share=step.lr_share)
    move_balance_bias(model, loads, step.bias_speed)
    violations = [max_violation(load_E) for load_E in loads.values()]
    nll, mtp_nll, balance = sums.tolist()
    return SFTStats(
        nll=nll,
        mtp_nll=mtp_nll,
        balance=balance,
        grad_norm=grad_norm,
        max_violation=sum(violations) / len(violations) if violations else None,
    )


@torch.no_grad()
def learned_nll(model: Transformer, blocks: Iterable[Block]) -> float:
    """Nats of all learned tokens together, without training."""
    total = 0.0
    for block in blocks:
        alone = Counts(rows=len(block.inputs), learned=(1,))
        total += float(conversation_losses(model, block, alone, mtp_weight=0.0, balance_alpha=0.0).nll)
    return total


def _mean_nll(
    model: Transformer, hidden_BTD: Tensor, aims_BT: Tensor, in_batch: int
) -> tuple[Tensor, Tensor]:
    """Cross-entropy of the aims that count, over their number in the batch; with and without gradient.

    Only their rows go through the head.
    """
    counts_N = aims_BT.flatten() >= 0
    hidden_ND, aims_N = hidden_BTD.flatten(0, 1)[counts_N], aims_BT.flatten()[counts_N]
    weights_N = torch.full(aims_N.shape, 1 / max(in_batch, 1), device=aims_N.device)
    loss, _ = kernels.linear_cross_entropy(hidden_ND, model.head_weight_WD, aims_N, weights_N)
    return loss, loss.detach()


def _load(routing: Routing, real_BT: Tensor) -> Tensor:
    """Rows each expert received, padding left out."""
    return torch.bincount(
        routing.experts_NK[real_BT.flatten()].flatten(), minlength=routing.scores_NE.shape[1]
    )
