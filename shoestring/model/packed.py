"""Linear layers, experts and MLA's up-projection on packed weights, and their way into a model."""

import torch
from torch import Tensor, nn

from shoestring import kernels
from shoestring.kernels.packed import GROUP, OUTPUTS, Bits, Packed, pack_into, packed_shape, unpack
from shoestring.model.attention import UpProjection
from shoestring.model.layers import MLP, Linear
from shoestring.model.moe import Experts, Routing
from shoestring.model.transformer import Transformer
from shoestring.model.weight_names import Sink


class PackedLinear(nn.Module):
    """Linear on packed weights."""

    blocks: Tensor

    def __init__(self, shape: tuple[int, int], bits: Bits, bias: nn.Parameter | None) -> None:
        super().__init__()
        self.bits, self.shape, self.bias = bits, shape, bias
        self.register_buffer("blocks", _empty(shape, bits))

    def forward(self, x: Tensor) -> Tensor:
        return kernels.packed_linear(x, Packed(self.bits, self.shape[0], self.blocks), self.bias)

    def sinks(self) -> dict[str, Sink]:
        return {"weight": RowSink(self.shape, self.bits, self.blocks[0])}


class PackedMLP(nn.Module):
    """Dense SwiGLU feed-forward on packed weights: one expert that every token visits."""

    gate_up_blocks: Tensor
    down_blocks: Tensor

    def __init__(self, mlp: MLP, bits: Bits) -> None:
        super().__init__()
        self.bits, self.hidden_size, self.width = bits, mlp.down_proj.out_features, mlp.down_proj.in_features
        self.register_buffer("gate_up_blocks", _empty((2 * self.width, self.hidden_size), bits))
        self.register_buffer("down_blocks", _empty((self.hidden_size, self.width), bits))

    def forward(self, x: Tensor) -> Tensor:
        x_ND = x.reshape(-1, self.hidden_size)
        gate_up = Packed(self.bits, 2 * self.width, self.gate_up_blocks)
        down = Packed(self.bits, self.hidden_size, self.down_blocks)
        chosen = torch.zeros(len(x_ND), 1, dtype=torch.int64, device=x.device)
        weights = torch.ones(len(x_ND), 1, device=x.device)
        return kernels.packed_experts(x_ND, chosen, weights, gate_up, down).view_as(x)

    def sinks(self) -> dict[str, Sink]:
        return _feed_forward_sinks(
            self.gate_up_blocks[0], self.down_blocks[0], self.bits, self.width, self.hidden_size
        )


class PackedExperts(nn.Module):
    """Experts on packed weights: what stays of a layer's routed experts is one block per matrix, stacked."""

    gate_up_blocks: Tensor
    down_blocks: Tensor

    def __init__(self, experts: Experts, bits: Bits) -> None:
        super().__init__()
        count, self.hidden_size, self.width = experts.down_proj.shape
        self.bits = bits
        self.register_buffer("gate_up_blocks", _empty((count, 2 * self.width, self.hidden_size), bits))
        self.register_buffer("down_blocks", _empty((count, self.hidden_size, self.width), bits))

    def forward(self, x_ND: Tensor, routing: Routing) -> Tensor:
        gate_up = Packed(self.bits, 2 * self.width, self.gate_up_blocks)
        down = Packed(self.bits, self.hidden_size, self.down_blocks)
        return kernels.packed_experts(x_ND, routing.experts_NK, routing.weights_NK, gate_up, down)

    def sinks(self) -> dict[str, Sink]:
        return {
            f"{expert}.{name}": sink
            for expert, pair in enumerate(zip(self.gate_up_blocks, self.down_blocks, strict=True))
            for name, sink in _feed_forward_sinks(*pair, self.bits, self.width, self.hidden_size).items()
        }


class PackedUpProjection(nn.Module):
    """MLA's kv_b_proj as attention over latents wants it: one matrix per head for keys, one for values."""

    key_blocks: Tensor
    value_blocks: Tensor

    def __init__(self, plain: UpProjection, bits: Bits) -> None:
        super().__init__()
        self.bits, self.heads, self.rank = bits, plain.heads, plain.in_features
        self.nope, self.value_width = plain.nope, plain.value_width
        self.register_buffer("key_blocks", _empty((self.heads, self.rank, self.nope), bits))
        self.register_buffer("value_blocks", _empty((self.heads, self.value_width, self.rank), bits))

    def forward(self, latent_BTC: Tensor) -> Tensor:
        """Every head's keys and values (B, T, H (P + V)), for scoring whole texts; unpacks the weights."""
        up_key_HCP = unpack(Packed(self.bits, self.rank, self.key_blocks))
        up_value_HVC = unpack(Packed(self.bits, self.value_width, self.value_blocks))
        key_BTHP = torch.einsum("btc,hcp->bthp", latent_BTC, up_key_HCP)
        value_BTHV = torch.einsum("btc,hvc->bthv", latent_BTC, up_value_HVC)
        return torch.cat((key_BTHP, value_BTHV), dim=-1).flatten(2)

    def absorb(self, q_BTHP: Tensor) -> Tensor:
        """See UpProjection.absorb."""
        up_key = Packed(self.bits, self.rank, self.key_blocks)
        return kernels.packed_linear_stack(q_BTHP.flatten(0, 1), up_key).unflatten(0, q_BTHP.shape[:2])

    def expand(self, mixed_BTHC: Tensor) -> Tensor:
        """See UpProjection.expand."""
        up_value = Packed(self.bits, self.value_width, self.value_blocks)
        return kernels.packed_linear_stack(mixed_BTHC.flatten(0, 1), up_value).unflatten(
            0, mixed_BTHC.shape[:2]
        )

    def sinks(self) -> dict[str, Sink]:
        return {"weight": HeadSink(self)}


class RowSink:
    """Packs rows of one matrix (F, K) as they are read."""

    rows_at_once = OUTPUTS

    def __init__(self, shape: tuple[int, int], bits: Bits, blocks: Tensor) -> None:
        self.shape, self._bits, self._blocks = shape, bits, blocks

    def write(self, first: int, rows: Tensor) -> None:
        panel = first // OUTPUTS
        pack_into(rows, self._bits, self._blocks[panel : panel + -(-len(rows) // OUTPUTS)])


class HeadSink:
    """Packs whole heads of kv_b_proj (H (P + V), C): keys transposed, values as they are."""

    def __init__(self, packed: PackedUpProjection) -> None:
        self._packed, self.rows_at_once = packed, packed.nope + packed.value_width
        self.shape = (packed.heads * self.rows_at_once, packed.rank)

    def write(self, first: int, rows: Tensor) -> None:
        p = self._packed
        for index, head in enumerate(rows.split(self.rows_at_once), first // self.rows_at_once):
            up_key_PC, up_value_VC = head.split([p.nope, p.value_width])
            pack_into(up_key_PC.T, p.bits, p.key_blocks[index])
            pack_into(up_value_VC, p.bits, p.value_blocks[index])


def _feed_forward_sinks(
    gate_up: Tensor, down: Tensor, bits: Bits, width: int, hidden_size: int
) -> dict[str, Sink]:
    """Of one feed-forward's three matrices; gate and up are whole panels, since groups divide `width`."""
    gate, up = gate_up.chunk(2)
    into, out = (width, hidden_size), (hidden_size, width)
    return {
        "gate_proj.weight": RowSink(into, bits, gate),
        "up_proj.weight": RowSink(into, bits, up),
        "down_proj.weight": RowSink(out, bits, down),
    }


def _empty(shape: tuple[int, ...], bits: Bits) -> Tensor:
    return torch.empty(packed_shape(shape, bits), dtype=torch.uint8)


def pack_structure(model: Transformer, bits: Bits) -> Transformer:
    """Replace, in a model on the meta device, every matrix that groups of 32 divide by a packed, empty one.

    The embedding, the router, norms and biases stay as they are. A tied head becomes a packed one of its own.
    """
    if model.config.tie_word_embeddings and model.config.hidden_size % GROUP == 0:
        model.lm_head = PackedLinear((model.config.vocab_size, model.config.hidden_size), bits, None)
    for module in list(model.modules()):
        for name, child in module.named_children():
            packed = _packed_twin(child, bits)
            if packed is not None:
                setattr(module, name, packed)
    return model


def _packed_twin(module: nn.Module, bits: Bits) -> nn.Module | None:
    """The packed form of one module; None for what stays."""
    if isinstance(module, UpProjection):
        return PackedUpProjection(module, bits) if _divides(module.nope, module.in_features) else None
    if isinstance(module, MLP) and _divides(module.down_proj.in_features, module.down_proj.out_features):
        return PackedMLP(module, bits)
    if isinstance(module, Linear):
        shape = (module.out_features, module.in_features)
        return PackedLinear(shape, bits, module.bias) if _divides(module.in_features) else None
    if isinstance(module, Experts):
        return PackedExperts(module, bits) if _divides(*module.down_proj.shape[1:]) else None
    return None


def _divides(*depths: int) -> bool:
    return all(depth % GROUP == 0 for depth in depths)


def is_packed(model: Transformer) -> bool:
    """Whether `model` computes on packed weights, and so cannot be trained."""
    return any(isinstance(module, PackedLinear | PackedExperts) for module in model.modules())
