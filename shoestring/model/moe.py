"""DeepSeekMoE: the router and its balance bias, routed experts as grouped products, shared experts."""

from collections.abc import Callable, Mapping
from typing import ClassVar, Protocol

import torch
from torch import Tensor, nn

from shoestring import kernels
from shoestring.kernels import Routing
from shoestring.kernels.layer_weights import RouterWeights
from shoestring.model.adapter import Adapter
from shoestring.model.config import MoEConfig
from shoestring.model.layers import MLP


class Router(nn.Module):
    """The gate of a layer: K experts per token, computed in float32 (V2 eq. 20-22, V3 eq. 12-16)."""

    e_score_correction_bias: Tensor

    def __init__(self, moe: MoEConfig, hidden_size: int) -> None:
        super().__init__()
        self.moe = moe
        self.weight = nn.Parameter(torch.empty(moe.n_routed_experts, hidden_size))
        if moe.topk_method == "noaux_tc":
            bias = torch.zeros(moe.n_routed_experts, dtype=torch.float32)
            self.register_buffer("e_score_correction_bias", bias)

    def forward(self, x_ND: Tensor, experts_NK: Tensor | None = None) -> Routing:
        """The routing of each token; with `experts_NK`, to those experts, with gates computed anew."""
        router = self.kernel_weights
        return kernels.route(kernels.linear(x_ND.float(), router.weight_ED), router, experts_NK)

    @property
    def kernel_weights(self) -> RouterWeights:
        """Weights and rule in the kernels' form; gradients reach the weight."""
        moe = self.moe
        groups = 1 if moe.topk_method == "greedy" else moe.n_group
        is_biased = moe.topk_method == "noaux_tc"
        return RouterWeights(
            weight_ED=self.weight.float().contiguous(),
            bias_E=self.e_score_correction_bias.float().contiguous() if is_biased else None,
            experts=moe.n_routed_experts,
            per_token=moe.num_experts_per_tok,
            groups=groups,
            top_groups=min(moe.topk_group, groups),
            softmax=moe.scoring_func == "softmax",
            normalize=moe.norm_topk_prob,
            scaling=moe.routed_scaling_factor,
        )


class TokenDispatcher(Protocol):
    """The exchange of one batch's tokens between routing and experts.

    With expert parallelism a process holds a part of the experts, and its rows come from every process: as
    many as were routed to its experts, sometimes none.
    """

    ends_E: Tensor
    """End of each expert's rows, int32, for the E experts of this process."""

    def dispatch(self, x_ND: Tensor) -> Tensor:
        """Copies of tokens (M, D) for the experts of this process, sorted by expert."""
        ...

    def combine(self, rows_MD: Tensor) -> Tensor:
        """The experts' outputs, weighted and summed for each of this process's tokens: (N, D)."""
        ...


class LocalTokenDispatcher:
    """Dispatch to experts that are all in this process: sort by expert, and sum back."""

    def __init__(self, routing: Routing) -> None:
        self.ends_E = routing.load_E().cumsum(0).to(torch.int32)
        self._positions_NK, self._weights_NK = row_positions(routing.experts_NK), routing.weights_NK

    def dispatch(self, x_ND: Tensor) -> Tensor:
        """See TokenDispatcher."""
        return kernels.dispatch(x_ND, self._positions_NK)

    def combine(self, rows_MD: Tensor) -> Tensor:
        """See TokenDispatcher."""
        return kernels.combine(rows_MD, self._positions_NK, self._weights_NK.to(rows_MD.dtype))


class Experts(nn.Module):
    """The routed experts of a layer, stacked; a checkpoint stores them one by one (hf/weights.py)."""

    adapter_slots: ClassVar[Mapping[str, str]] = {
        "gate_up_proj": "gate_up_adapter",
        "down_proj": "down_adapter",
    }
    gate_up_adapter: Adapter | None
    down_adapter: Adapter | None
    dispatcher: Callable[[Routing], TokenDispatcher]
    product: Callable[[Tensor, Tensor, Tensor], Tensor]
    activation: Callable[[Tensor], Tensor]

    def __init__(self, moe: MoEConfig, hidden_size: int) -> None:
        super().__init__()
        count, width = moe.n_routed_experts, moe.moe_intermediate_size
        self.gate_up_proj = nn.Parameter(torch.empty(count, 2 * width, hidden_size))
        self.down_proj = nn.Parameter(torch.empty(count, hidden_size, width))
        for slot in self.adapter_slots.values():
            self.register_module(slot, None)
        self.dispatcher = LocalTokenDispatcher
        self.product = kernels.grouped_linear
        self.activation = kernels.swiglu_packed

    def forward(self, x_ND: Tensor, routing: Routing) -> Tensor:
        """Grouped products of rows sorted by expert, and their weighted sum: no loop over experts."""
        tokens = self.dispatcher(routing)
        rows_MD, ends_E = tokens.dispatch(x_ND), tokens.ends_E
        gate_up_MF = self.product(rows_MD, self.gate_up_proj, ends_E)
        if self.gate_up_adapter is not None:
            gate_up_MF = self.gate_up_adapter.grouped(rows_MD, gate_up_MF, ends_E)
        hidden_MF = self.activation(gate_up_MF)
        out_MD = self.product(hidden_MF, self.down_proj, ends_E)
        if self.down_adapter is not None:
            out_MD = self.down_adapter.grouped(hidden_MF, out_MD, ends_E)
        return tokens.combine(out_MD)

    def matrix_shape(self, parameter: str) -> tuple[int, ...]:
        """See AdaptedLayer."""
        return tuple(getattr(self, parameter).shape)


def row_positions(experts_NK: Tensor) -> Tensor:
    """Place of each token's K copies once all copies are sorted by expert (stable)."""
    order = experts_NK.flatten().argsort(stable=True)
    positions = torch.empty_like(order)
    positions[order] = torch.arange(order.numel(), device=order.device)
    return positions.view_as(experts_NK)


class MoE(nn.Module):
    """Routed experts plus the shared experts, which every token visits."""

    def __init__(self, moe: MoEConfig, hidden_size: int) -> None:
        super().__init__()
        self.gate = Router(moe, hidden_size)
        self.experts = Experts(moe, hidden_size)
        if moe.n_shared_experts:
            self.shared_experts = MLP(hidden_size, moe.moe_intermediate_size * moe.n_shared_experts)

    def forward(self, x_BTD: Tensor, experts_NK: Tensor | None = None) -> tuple[Tensor, Routing]:
        x_ND = x_BTD.flatten(0, 1)
        routing = self.gate(x_ND, experts_NK)
        out_ND = self.experts(x_ND, routing)
        if hasattr(self, "shared_experts"):
            out_ND = out_ND + self.shared_experts(x_ND)
        return out_ND.view_as(x_BTD), routing
