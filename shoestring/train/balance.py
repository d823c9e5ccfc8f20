"""Balance of the experts: the sequence balance loss, and the bias and loads of balancing without a loss."""

import torch
from torch import Tensor

from shoestring.kernels import Routing
from shoestring.model.moe import MoE
from shoestring.model.transformer import Transformer


def sequence_balance(routing: Routing, num_sequences: int, real_BT: Tensor | None = None) -> Tensor:
    """V3 eq. 17-20: per sequence, sum over experts of (share of rows x E) times (mean normalized affinity).

    Exactly 1 at perfect balance of either factor, more if busy experts have the higher affinities too. Summed
    over the sequences; where `real_BT` is False there is padding, which counts in neither factor.
    """
    experts_BTK = routing.experts_NK.unflatten(0, (num_sequences, -1))
    scores_BTE = routing.scores_NE.unflatten(0, (num_sequences, -1))
    (_, length, per_token), num_experts = experts_BTK.shape, scores_BTE.shape[-1]
    affinity_BTE = scores_BTE / scores_BTE.sum(-1, keepdim=True)
    if real_BT is None:
        tokens_B1: Tensor | int = length
        rows_BTK = torch.ones((), device=scores_BTE.device).expand_as(experts_BTK)
    else:
        tokens_B1 = real_BT.sum(1, keepdim=True)
        rows_BTK = real_BT[..., None].expand_as(experts_BTK).float()
        affinity_BTE = affinity_BTE * real_BT[..., None]
    rows_BE = torch.zeros(num_sequences, num_experts, device=scores_BTE.device)
    rows_BE.scatter_add_(1, experts_BTK.flatten(1), rows_BTK.flatten(1))
    affinity_BE = affinity_BTE.sum(1) / tokens_B1
    return (rows_BE * (num_experts / (per_token * tokens_B1)) * affinity_BE).sum()


def expert_loads(routing: Routing, real_BT: Tensor | None = None) -> Tensor:
    """Rows that each expert received, padding left out: (E,) int64."""
    if real_BT is None:
        return routing.load_E()
    experts_NK = routing.experts_NK[real_BT.flatten()]
    return torch.bincount(experts_NK.flatten(), minlength=routing.scores_NE.shape[1])


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
