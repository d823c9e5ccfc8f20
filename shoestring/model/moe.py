"""DeepSeekMoE: the router and its balance bias, routed experts as grouped products, shared experts."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from shoestring import kernels
from shoestring.model.config import MoEConfig
from shoestring.model.layers import MLP


@dataclass(frozen=True)
class Routing:
    """Who goes where: chosen experts and their gates (N, K), and every expert's affinity (N, E)."""

    experts_NK: Tensor
    weights_NK: Tensor
    scores_NE: Tensor

    def load_E(self) -> Tensor:
        """Rows each expert received, int64."""
        return torch.bincount(self.experts_NK.flatten(), minlength=self.scores_NE.shape[1])


class Router(nn.Module):
    """Chooses K experts per token; always computed in float32 (V2 eq. 20-22, V3 eq. 12-16)."""

    e_score_correction_bias: Tensor

    def __init__(self, moe: MoEConfig, hidden_size: int) -> None:
        super().__init__()
        self.moe = moe
        self.weight = nn.Parameter(torch.empty(moe.n_routed_experts, hidden_size))
        if moe.topk_method == "noaux_tc":
            bias = torch.zeros(moe.n_routed_experts, dtype=torch.float32)
            self.register_buffer("e_score_correction_bias", bias)

    def forward(self, x_ND: Tensor, experts_NK: Tensor | None = None) -> Routing:
        """Where each token goes; given `experts_NK`, there, with today's gates."""
        moe = self.moe
        logits_NE = kernels.linear(x_ND.float(), self.weight.float())
        scores_NE = logits_NE.softmax(-1) if moe.scoring_func == "softmax" else sigmoid(logits_NE)
        experts_NK = self._choose(scores_NE.detach()) if experts_NK is None else experts_NK
        weights_NK = scores_NE.gather(1, experts_NK)
        if moe.norm_topk_prob:
            weights_NK = weights_NK / (weights_NK.sum(-1, keepdim=True) + 1e-20)
        return Routing(experts_NK, weights_NK * moe.routed_scaling_factor, scores_NE)

    def _choose(self, scores_NE: Tensor) -> Tensor:
        """The K experts of each token: the balance bias moves the choice, never the gate's value."""
        moe = self.moe
        biased = moe.topk_method == "noaux_tc"
        choice_NE = scores_NE + self.e_score_correction_bias if biased else scores_NE
        if moe.topk_method != "greedy" and moe.topk_group < moe.n_group:
            grouped = choice_NE.unflatten(1, (moe.n_group, -1))
            if biased:
                group_scores = grouped.topk(2, dim=-1).values.sum(-1)
            else:
                group_scores = grouped.amax(-1)
            allowed = torch.zeros_like(group_scores, dtype=torch.bool)
            allowed.scatter_(1, group_scores.topk(moe.topk_group, dim=-1).indices, True)
            # V3's biased scores may be negative, so what is not allowed must lose to every number.
            choice_NE = grouped.masked_fill(~allowed[..., None], float("-inf") if biased else 0.0).flatten(1)
        return choice_NE.topk(moe.num_experts_per_tok, dim=-1, sorted=False).indices


def sigmoid(x: Tensor) -> Tensor:
    """The logistic function. Without gradients in float64: float32 rounds otherwise at a row's end."""
    return x.sigmoid() if torch.is_grad_enabled() else x.double().sigmoid().float()


class Experts(nn.Module):
    """All routed experts of a layer, stacked; on disk they are one matrix each (weights.py)."""

    def __init__(self, moe: MoEConfig, hidden_size: int) -> None:
        super().__init__()
        count, width = moe.n_routed_experts, moe.moe_intermediate_size
        self.gate_up_proj = nn.Parameter(torch.empty(count, 2 * width, hidden_size))
        self.down_proj = nn.Parameter(torch.empty(count, hidden_size, width))

    def forward(self, x_ND: Tensor, routing: Routing) -> Tensor:
        """Sort tokens by expert, three grouped products, weighted sum back: no loop over experts."""
        positions_NK = row_positions(routing.experts_NK)
        ends_E = routing.load_E().cumsum(0).to(torch.int32)
        rows_MD = kernels.dispatch(x_ND, positions_NK)
        hidden_MF = kernels.swiglu_packed(kernels.grouped_linear(rows_MD, self.gate_up_proj, ends_E))
        rows_MD = kernels.grouped_linear(hidden_MF, self.down_proj, ends_E)
        return kernels.combine(rows_MD, positions_NK, routing.weights_NK.to(rows_MD.dtype))


def row_positions(experts_NK: Tensor) -> Tensor:
    """Where each token's K copies stand once all copies are sorted by expert (stable)."""
    order = experts_NK.flatten().argsort(stable=True)
    positions = torch.empty_like(order)
    positions[order] = torch.arange(order.numel(), device=order.device)
    return positions.view_as(experts_NK)


class MoE(nn.Module):
    """Routed experts plus the shared experts that every token visits."""

    def __init__(self, moe: MoEConfig, hidden_size: int) -> None:
        super().__init__()
        self.gate = Router(moe, hidden_size)
        self.experts = Experts(moe, hidden_size)
        if moe.n_shared_experts:
            self.shared_experts = MLP(hidden_size, moe.moe_intermediate_size * moe.n_shared_experts)

    def forward(self, x_BTD: Tensor, experts_NK: Tensor | None = None) -> tuple[Tensor, Routing]:
        x_ND = x_BTD.flatten(0, 1)
        routing = self.gate(x_ND) if experts_NK is None else self.gate(x_ND, experts_NK)
        out_ND = self.experts(x_ND, routing)
        if hasattr(self, "shared_experts"):
            out_ND = out_ND + self.shared_experts(x_ND)
        return out_ND.view_as(x_BTD), routing
