"""Blocks on packed weights, each in two calls on a CPU, and the packing of a whole model."""

from typing import Any

from torch import Tensor, nn

from shoestring import kernels
from shoestring.kernels.layer_weights import (
    FeedForwardWeights,
    GroupedAttentionWeights,
    LatentAttentionWeights,
    MatrixWeights,
    NormWeights,
    Routing,
)
from shoestring.kernels.packed import GROUP, Bits
from shoestring.model.attention import GQA, UpProjection
from shoestring.model.cache import LayerCache, Pages
from shoestring.model.layers import MLP, Linear, RMSNorm, Rotation
from shoestring.model.memory import HEAD_BITS
from shoestring.model.moe import Experts, MoE
from shoestring.model.packed.layers import (
    PackedExperts,
    PackedLinear,
    PackedMLP,
    PackedUpProjection,
)
from shoestring.model.transformer import Block, MTPBlock, Transformer

AttentionWeights = LatentAttentionWeights | GroupedAttentionWeights


class PackedBlock(Block):
    """A block whose matrices are all packed: two calls over pages on a CPU, else a plain block's operations.

    Both ways give the same bits. One by one, a third of a decoding step would pass between the operations.
    """

    def __init__(self, plain: Block) -> None:
        nn.Module.__init__(self)  # Block's own would create all weights again
        for name, child in plain.named_children():
            setattr(self, name, child)
        self._halves: tuple[AttentionWeights, FeedForwardWeights] | None = None
        self.register_load_state_dict_post_hook(lambda module, _: module.forget())

    def forward(
        self,
        x_BTD: Tensor,
        rotation: Rotation,
        cache: LayerCache | None = None,
        experts_NK: Tensor | None = None,
        segments_S2: Tensor | None = None,
    ) -> tuple[Tensor, Routing | None]:
        pages = None if cache is None else cache.pages
        in_one_call = experts_NK is None and kernels.in_one_call("feed_forward_layer", x_BTD)
        if pages is None or not in_one_call:
            return super().forward(x_BTD, rotation, cache, experts_NK, segments_S2)
        if self._halves is None:
            self._halves = (_attention(self), _feed_forward(self))
        attention, feed_forward = self._halves
        result = kernels.feed_forward_layer(_attend(x_BTD[0], attention, rotation, pages), feed_forward)
        return result.hidden_ND[None], result.routing

    def forget(self) -> None:
        """Forget the tensors, which may have been replaced; they are read again before the next use."""
        self._halves = None

    def _apply(self, *arguments: Any, **options: Any) -> "PackedBlock":
        self.forget()
        return super()._apply(*arguments, **options)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_halves": None}  # a copy has other addresses


class PackedMTPBlock(PackedBlock, MTPBlock):
    """An MTPBlock on packed weights."""


def _attend(x_ND: Tensor, weights: AttentionWeights, rotation: Rotation, pages: Pages) -> Tensor:
    entries, index = pages.entries, pages.index
    cos_NA, sin_NA, interleave = rotation.cos_NA, rotation.sin_NA, rotation.interleave
    if isinstance(weights, LatentAttentionWeights):
        latent, k_rope = entries["latent"], entries["k_rope"]
        return kernels.latent_attention_layer(
            x_ND, weights, latent, k_rope, index, cos_NA, sin_NA, interleave
        )
    key, value = entries["key"], entries["value"]
    return kernels.grouped_attention_layer(x_ND, weights, key, value, index, cos_NA, sin_NA, interleave)


def _attention(block: Block) -> AttentionWeights:
    attention, norm = block.self_attn, _norm(block.input_layernorm)
    if isinstance(attention, GQA):
        q, k, v, out = (
            _matrix(getattr(attention, name)) for name in ("q_proj", "k_proj", "v_proj", "o_proj")
        )
        gqa = attention.gqa
        q_norm, k_norm = (
            _norm(getattr(attention, name)) if gqa.qk_norm else None for name in ("q_norm", "k_norm")
        )
        return GroupedAttentionWeights(
            norm, q, k, v, out, q_norm, k_norm, width=gqa.head_dim, scale=attention.scale
        )
    direct, up = attention.mla.q_lora_rank is None, attention.kv_b_proj
    assert isinstance(up, PackedUpProjection)
    return LatentAttentionWeights(
        norm=norm,
        q_a=None if direct else _matrix(attention.q_a_proj),
        q_norm=None if direct else _norm(attention.q_a_layernorm),
        q_b=_matrix(attention.q_proj if direct else attention.q_b_proj),
        kv_a=_matrix(attention.kv_a_proj_with_mqa),
        kv_norm=_norm(attention.kv_a_layernorm),
        up_key=MatrixWeights(up.key),
        up_value=MatrixWeights(up.value),
        out=_matrix(attention.o_proj),
        scale=attention.scale,
    )


def _feed_forward(block: Block) -> FeedForwardWeights:
    mlp, norm = block.mlp, _norm(block.post_attention_layernorm)
    if isinstance(mlp, PackedMLP):
        return FeedForwardWeights(norm, mlp.hidden_size, None, None, mlp.experts)
    assert isinstance(mlp, MoE)
    experts: nn.Module = mlp.experts
    shared_mlp = getattr(mlp, "shared_experts", None)
    assert isinstance(experts, PackedExperts)
    shared_expert = shared_mlp.experts if isinstance(shared_mlp, PackedMLP) else None
    router = mlp.gate.kernel_weights
    return FeedForwardWeights(norm, experts.hidden_size, router, experts.experts, shared_expert)


def _norm(norm: RMSNorm) -> NormWeights:
    return NormWeights(norm.weight.detach().float().contiguous(), norm.eps)


def _matrix(linear: nn.Module) -> MatrixWeights:
    assert isinstance(linear, PackedLinear)
    return linear.matrix


def pack_structure(model: Transformer, bits: Bits, *, pack_head: bool = True) -> Transformer:
    """Replace every matrix of a model on the meta device by a packed, empty one, where 32 divides its inputs.

    The embedding, the router's weights, norms and biases stay as they are. The head is int8 at least: its
    errors go straight into the logits, and llama.cpp keeps it wide too. A tied head gets a matrix of its own;
    with `pack_head` false it stays the embedding's, and any head stays plain.
    """
    if pack_head and model.config.hidden_size % GROUP == 0:
        head = (model.config.vocab_size, model.config.hidden_size)
        model.add_module("lm_head", PackedLinear(head, max(bits, HEAD_BITS), None))
    for module in list(model.model.modules()):
        for name, child in module.named_children():
            packed = _packed_form(child, bits)
            if packed is not None:
                setattr(module, name, packed)
    for index, block in enumerate(model.model.layers):
        if not any(isinstance(module, Linear | MLP | Experts) for module in block.modules()):
            assert isinstance(block, Block)
            kind = PackedMTPBlock if isinstance(block, MTPBlock) else PackedBlock
            model.model.layers[index] = kind(block)
    return model


def _packed_form(module: nn.Module, bits: Bits) -> nn.Module | None:
    """The packed form of one module; None for a module that stays as it is."""
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
