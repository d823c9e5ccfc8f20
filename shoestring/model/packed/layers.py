"""Linear layers, feed-forwards and MLA's up-projection on packed weights."""

import torch
from torch import Tensor, nn

from shoestring import kernels
from shoestring.kernels.layer_weights import ExpertWeights, MatrixWeights, Routing
from shoestring.kernels.packed import Bits, Packed, packed_shape, unpack
from shoestring.model.attention import UpProjection
from shoestring.model.hf.names import Sink
from shoestring.model.layers import MLP
from shoestring.model.moe import Experts
from shoestring.model.packed.sinks import HeadSink, RowSink, feed_forward_sinks


class PackedLinear(nn.Module):
    """A linear layer on packed weights."""

    blocks: Tensor

    def __init__(self, shape: tuple[int, int], bits: Bits, bias: nn.Parameter | None) -> None:
        super().__init__()
        self.bits, self.shape, self.bias = bits, shape, bias
        self.register_buffer("blocks", _empty(shape, bits))

    def forward(self, x: Tensor) -> Tensor:
        return kernels.packed_linear(x, self.matrix.weight, self.bias)

    @property
    def matrix(self) -> MatrixWeights:
        bias = None if self.bias is None else self.bias.detach().float().contiguous()
        return MatrixWeights(Packed(self.bits, self.shape[0], self.blocks), bias)

    @property
    def weight(self) -> Tensor:
        """The float32 matrix (F, D) that the integers stand for, unpacked at each call."""
        return unpack(self.matrix.weight)[0]

    def sinks(self) -> dict[str, Sink]:
        return {"weight": RowSink(self.shape, self.bits, self.blocks[0])}


class PackedMLP(nn.Module):
    """Dense SwiGLU feed-forward on packed weights, as one expert that every token visits."""

    gate_up_blocks: Tensor
    down_blocks: Tensor

    def __init__(self, mlp: MLP, bits: Bits) -> None:
        super().__init__()
        self.bits, self.hidden_size, self.width = bits, mlp.down_proj.out_features, mlp.down_proj.in_features
        self.register_buffer("gate_up_blocks", _empty((2 * self.width, self.hidden_size), bits))
        self.register_buffer("down_blocks", _empty((self.hidden_size, self.width), bits))

    def forward(self, x: Tensor) -> Tensor:
        x_ND, experts = x.reshape(-1, self.hidden_size), self.experts
        first_N1 = torch.zeros(len(x_ND), 1, dtype=torch.int64, device=x.device)
        gates_N1 = torch.ones(len(x_ND), 1, device=x.device)
        return kernels.packed_experts(x_ND, first_N1, gates_N1, experts.gate_up, experts.down).view_as(x)

    @property
    def experts(self) -> ExpertWeights:
        return _experts(self)

    def sinks(self) -> dict[str, Sink]:
        return feed_forward_sinks(
            self.gate_up_blocks[0], self.down_blocks[0], self.bits, self.width, self.hidden_size
        )


class PackedExperts(nn.Module):
    """The routed experts of a layer on packed weights, stacked."""

    gate_up_blocks: Tensor
    down_blocks: Tensor

    def __init__(self, experts: Experts, bits: Bits) -> None:
        super().__init__()
        count, self.hidden_size, self.width = experts.down_proj.shape
        self.bits = bits
        self.register_buffer("gate_up_blocks", _empty((count, 2 * self.width, self.hidden_size), bits))
        self.register_buffer("down_blocks", _empty((count, self.hidden_size, self.width), bits))

    def forward(self, x_ND: Tensor, routing: Routing) -> Tensor:
        gates, experts = (routing.experts_NK, routing.weights_NK), self.experts
        return kernels.packed_experts(x_ND, *gates, experts.gate_up, experts.down)

    @property
    def experts(self) -> ExpertWeights:
        return _experts(self)

    def sinks(self) -> dict[str, Sink]:
        return {
            f"{expert}.{name}": sink
            for expert, pair in enumerate(zip(self.gate_up_blocks, self.down_blocks, strict=True))
            for name, sink in feed_forward_sinks(*pair, self.bits, self.width, self.hidden_size).items()
        }


class PackedUpProjection(nn.Module):
    """MLA's kv_b_proj for attention over latents: per head, a matrix for keys and one for values."""

    key_blocks: Tensor
    value_blocks: Tensor

    def __init__(self, plain: UpProjection, bits: Bits) -> None:
        super().__init__()
        self.bits, self.heads, self.rank = bits, plain.heads, plain.in_features
        self.nope, self.value_width = plain.nope, plain.value_width
        self.register_buffer("key_blocks", _empty((self.heads, self.rank, self.nope), bits))
        self.register_buffer("value_blocks", _empty((self.heads, self.value_width, self.rank), bits))

    def forward(self, latent_BTC: Tensor) -> Tensor:
        """Every head's keys and values (B, T, H (P + V)); unpacks the weights at each call."""
        up_key_HCP, up_value_HVC = unpack(self.key), unpack(self.value)
        key_BTHP = torch.einsum("btc,hcp->bthp", latent_BTC, up_key_HCP)
        value_BTHV = torch.einsum("btc,hvc->bthv", latent_BTC, up_value_HVC)
        return torch.cat((key_BTHP, value_BTHV), dim=-1).flatten(2)

    def absorb(self, q_BTHP: Tensor) -> Tensor:
        """See UpProjection.absorb."""
        return kernels.packed_linear_stack(q_BTHP.flatten(0, 1), self.key).unflatten(0, q_BTHP.shape[:2])

    def expand(self, mixed_BTHC: Tensor) -> Tensor:
        """See UpProjection.expand."""
        mixed_NHC = mixed_BTHC.flatten(0, 1)
        return kernels.packed_linear_stack(mixed_NHC, self.value).unflatten(0, mixed_BTHC.shape[:2])

    @property
    def key(self) -> Packed:
        return Packed(self.bits, self.rank, self.key_blocks)

    @property
    def value(self) -> Packed:
        return Packed(self.bits, self.value_width, self.value_blocks)

    def sinks(self) -> dict[str, Sink]:
        return {
            "weight": HeadSink(self.nope, self.value_width, self.bits, self.key_blocks, self.value_blocks)
        }


def _experts(module: PackedMLP | PackedExperts) -> ExpertWeights:
    gate_up = Packed(module.bits, 2 * module.width, module.gate_up_blocks)
    return ExpertWeights(gate_up, Packed(module.bits, module.hidden_size, module.down_blocks))


def _empty(shape: tuple[int, ...], bits: Bits) -> Tensor:
    return torch.empty(packed_shape(shape, bits), dtype=torch.uint8)
