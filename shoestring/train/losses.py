"""Next-token loss with multi-token prediction; sequence balance loss, and the bias that replaces it."""

from dataclasses import dataclass

import torch
from torch import Tensor

from shoestring import kernels
from shoestring.model.moe import MoE, Routing
from shoestring.model.transformer import Transformer


@dataclass
class Losses:
    """The sum to differentiate and its parts, as means over predicted tokens; nll in nats."""

    total: Tensor
    nll: Tensor
    mtp_nll: Tensor
    balance: Tensor
    loads: dict[int, Tensor]
    """Rows each expert received, by layer: (E,) int64."""


def next_token_losses(
    model: Transformer,
    inputs_BT: Tensor,
    targets_BT: Tensor,
    *,
    mtp_weight: float,
    balance_alpha: float,
    whole_BT: Tensor | None = None,
) -> Losses:
    """V3 eq. 24-25: cross-entropy of the next token plus `mtp_weight` times the mean over MTP depths.

    targets[b, t] is the token after inputs[b, t]; a negative one counts nothing. `balance_alpha` weighs the
    sequence balance loss (eq. 17-20). If these rows are a part of a batch, `whole_BT` is all its targets, and
    what is returned is this part's share of the batch's means: the parts add up to them, however cut.
    """
    whole_BT = targets_BT if whole_BT is None else whole_BT
    features = model.features(inputs_BT)
    loss, nll = _mean_nll(model, features.hidden_BTD, targets_BT, whole_BT)
    routings = dict(features.routings)
    depths = model.config.num_nextn_predict_layers
    mtp_nll = torch.zeros((), device=nll.device)
    hidden_BTD = features.hidden_BTD
    for depth in range(depths):
        ahead_BT = shift_left(targets_BT, depth)
        predicted = model.mtp_features(hidden_BTD, ahead_BT.clamp(min=0), depth)
        aims_BT, all_aims_BT = (shift_left(ids, depth + 1) for ids in (targets_BT, whole_BT))
        part, part_nll = _mean_nll(model, predicted.hidden_BTD, aims_BT, all_aims_BT)
        loss, mtp_nll = loss + mtp_weight / depths * part, mtp_nll + part_nll / depths
        hidden_BTD = predicted.hidden_BTD
        routings |= predicted.routings
    balance = torch.zeros((), device=nll.device)
    if balance_alpha:
        balance = sum((sequence_balance(r, len(inputs_BT)) for r in routings.values()), balance)
        balance = balance * (len(inputs_BT) / len(whole_BT))
        loss = loss + balance_alpha * balance
    loads = {index: routing.load_E() for index, routing in routings.items()}
    return Losses(loss, nll, mtp_nll, balance.detach(), loads)


def shift_left(ids_BT: Tensor, by: int) -> Tensor:
    """Each row moved `by` to the left; what comes in on the right is -1, "nothing to predict"."""
    if by == 0:
        return ids_BT
    filler = ids_BT.new_full((ids_BT.shape[0], min(by, ids_BT.shape[1])), -1)
    return torch.cat((ids_BT[:, by:], filler), dim=1)


def _mean_nll(
    model: Transformer, hidden_BTD: Tensor, targets_BT: Tensor, whole_BT: Tensor
) -> tuple[Tensor, Tensor]:
    """Cross-entropy summed over the targets that count, over their number in the whole batch.

    Returned with and without its gradient.
    """
    targets_N = targets_BT.flatten()
    weights_N = (targets_N >= 0).float() / (whole_BT >= 0).sum().clamp(min=1)
    loss, _ = kernels.linear_cross_entropy(
        hidden_BTD.flatten(0, 1), model.head_weight_WD, targets_N, weights_N
    )
    return loss, loss.detach()


def sequence_balance(routing: Routing, num_sequences: int) -> Tensor:
    """V3 eq. 17-20: per sequence, sum over experts of (share of rows x E) times (mean normalized affinity).

    Exactly 1 at perfect balance of either factor, and more when the busy experts are the liked ones.
    """
    experts_BTK = routing.experts_NK.unflatten(0, (num_sequences, -1))
    scores_BTE = routing.scores_NE.unflatten(0, (num_sequences, -1))
    count, chosen = scores_BTE.shape[-1], experts_BTK[0].numel()
    rows_BE = torch.zeros(num_sequences, count, device=scores_BTE.device)
    ones = torch.ones((), device=rows_BE.device).expand(num_sequences, chosen)
    rows_BE.scatter_add_(1, experts_BTK.flatten(1), ones)
    affinity_BE = (scores_BTE / scores_BTE.sum(-1, keepdim=True)).mean(1)
    return (rows_BE * (count / chosen) * affinity_BE).sum(-1).mean()


@torch.no_grad()
def move_balance_bias(model: Transformer, loads: dict[int, Tensor], speed: float) -> None:
    """V3 section 2.1.2: an expert above the mean load has its bias lowered by `speed`, one below raised."""
    for index, load_E in loads.items():
        layer = model.model.layers[index].mlp
        assert isinstance(layer, MoE)
        if speed and layer.gate.moe.topk_method == "noaux_tc":
            below_mean_E = (load_E.sum() - load_E * len(load_E)).sign()  # in integers: the mean is exact
            layer.gate.e_score_correction_bias += speed * below_mean_E


def max_violation(load_E: Tensor) -> float:
    """(largest load - mean load) / mean load: 0 is perfect balance (arXiv 2408.15664)."""
    load = load_E.float()
    return float((load.max() - load.mean()) / load.mean().clamp(min=1))
