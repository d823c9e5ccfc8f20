"""The model: blocks, head, multi-token-prediction modules, initialization; parameters have HF's names."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from shoestring import kernels
from shoestring.kernels import Routing
from shoestring.model.attention import attention_class, build_attention
from shoestring.model.cache import DenseCache, LayerCache, ModelCache
from shoestring.model.config import MLAConfig, ModelConfig
from shoestring.model.layers import MLP, Embedding, Linear, RMSNorm, Rotation, build_rotation
from shoestring.model.moe import Experts, MoE


@dataclass
class Features:
    """Normalized hidden states of B x T tokens, and each MoE layer's routing."""

    hidden_BTD: Tensor
    routings: dict[int, Routing] = field(default_factory=dict)


class Block(nn.Module):
    """Attention and feed-forward, each after a norm and added to the residual stream."""

    def __init__(self, config: ModelConfig, index: int) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = build_attention(config)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        if config.moe is not None and config.is_moe_layer(index):
            self.mlp: MoE | MLP = MoE(config.moe, config.hidden_size)
        else:
            self.mlp = MLP(config.hidden_size, config.intermediate_size)

    def forward(
        self,
        x_BTD: Tensor,
        rotation: Rotation,
        cache: LayerCache | None = None,
        experts_NK: Tensor | None = None,
        segments_S2: Tensor | None = None,
    ) -> tuple[Tensor, Routing | None]:
        x_BTD = x_BTD + self.self_attn(self.input_layernorm(x_BTD), rotation, cache, segments_S2)
        normed_BTD = self.post_attention_layernorm(x_BTD)
        if isinstance(self.mlp, MoE):
            out_BTD, routing = self.mlp(normed_BTD, experts_NK)
            return x_BTD + out_BTD, routing
        return x_BTD + self.mlp(normed_BTD), None


class SharedHead(nn.Module):
    """The norm before the output head of an MTP module; the head itself is the model's."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)


class MTPBlock(Block):
    """Predicts one token further, from a hidden state and the next token's embedding (V3 section 2.2)."""

    def __init__(self, config: ModelConfig, index: int) -> None:
        super().__init__(config, index)
        self.enorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.hnorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.eh_proj = Linear(2 * config.hidden_size, config.hidden_size, bias=False)
        self.shared_head = SharedHead(config)

    def merge(self, hidden_BTD: Tensor, embedded_BTD: Tensor) -> Tensor:
        """The block's input. The stored eh_proj takes the embedding first; the paper writes it second."""
        return self.eh_proj(torch.cat((self.enorm(embedded_BTD), self.hnorm(hidden_BTD)), dim=-1))


class Decoder(nn.Module):
    """Embedding, layers, final norm; MTP module k is layer num_hidden_layers + k, as DeepSeek stores it.

    A process that holds a part of the layers, such as a pipeline stage, has None in place of the others.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        count = config.num_hidden_layers
        self.num_hidden_layers = count
        self.embed_tokens = Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(
            [Block(config, i) for i in range(count)]
            + [MTPBlock(config, count + k) for k in range(config.num_nextn_predict_layers)]
        )
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def blocks(self) -> Iterator[tuple[int, Block]]:
        """Index and block of the main layers in this process."""
        for index, block in zip(range(self.num_hidden_layers), self.layers, strict=False):
            if block is not None:
                yield index, cast(Block, block)

    def mtp_block(self, depth: int) -> tuple[int, MTPBlock]:
        """Index and block of an MTP module."""
        index = self.num_hidden_layers + depth
        block = self.layers[index]
        assert isinstance(block, MTPBlock)
        return index, block


class Transformer(nn.Module):
    """A causal language model composed from a ModelConfig.

    Args:
        config: the shape.
        compute_dtype: precision of activations (float32 on CPU, bfloat16 on GPU); parameters keep their own.

    `gradient_checkpointing` set to True keeps only each layer's input for the backward pass and computes the
    layer again there (arXiv 1604.06174): the same gradients in less memory, for a third more work.
    """

    def __init__(self, config: ModelConfig, compute_dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.config, self.compute_dtype = config, compute_dtype
        self.gradient_checkpointing = False
        self.model = Decoder(config)
        self.multiplies_in_bf16 = self.multiplies_in_fp8 = False
        if not config.tie_word_embeddings:
            self.lm_head = Linear(config.hidden_size, config.vocab_size, bias=False)

    def multiply_in_bf16(self) -> None:
        """Multiply matrices of float32 in bfloat16 from now on, head and experts included, the router not."""
        self.multiplies_in_bf16 = True
        for module in self.modules():
            if isinstance(module, Linear):
                module.product = kernels.linear_bf16
            elif isinstance(module, Experts):
                module.product = kernels.grouped_linear_bf16

    @property
    def head_weight_WD(self) -> Tensor:
        """The output matrix; the embedding's when they are tied and it has no packed form of its own."""
        return self.lm_head.weight if hasattr(self, "lm_head") else self.model.embed_tokens.weight

    @property
    def device(self) -> torch.device:
        return self.model.embed_tokens.weight.device

    def forward(self, ids_BT: Tensor, cache: DenseCache | None = None) -> Tensor:
        """Next-token logits (B, T, W), float32. With a cache, ids continue the tokens in it."""
        return self.logits(self.features(ids_BT, cache).hidden_BTD)

    def logits(self, hidden_BTD: Tensor) -> Tensor:
        """Next-token logits (B, T, W) of normalized hidden states, float32."""
        if hasattr(self, "lm_head"):
            return self.lm_head(hidden_BTD).float()
        return kernels.linear(hidden_BTD, self.model.embed_tokens.weight).float()

    def features(
        self,
        ids_BT: Tensor,
        cache: ModelCache | None = None,
        positions_BT: Tensor | None = None,
        *,
        experts: Mapping[int, Tensor] | None = None,
        segments_S2: Tensor | None = None,
    ) -> Features:
        """Embedding, main layers and final norm. Positions count on from a dense cache's length if None.

        `experts` are the experts (B * T, K) that each MoE layer must send its tokens to, as an earlier pass
        chose them ("keep routing", DeepSeek-V3.2, arXiv 2512.02556, section 3.1); gates are computed anew.
        `segments_S2` are the sequences in the tokens of one row, as kernels.causal_attention takes them; with
        them the positions are given.
        """
        if positions_BT is None:
            assert cache is None or isinstance(cache, DenseCache), "a paged cache needs the rows' positions"
            positions_BT = self._positions(ids_BT.shape, 0 if cache is None else cache.length)
        x_BTD, routings = self.run_layers(
            self._embed(ids_BT), positions_BT, cache, experts=experts, segments_S2=segments_S2
        )
        return Features(self.model.norm(x_BTD), routings)

    def run_layers(
        self,
        x_BTD: Tensor,
        positions_BT: Tensor,
        cache: ModelCache | None = None,
        *,
        experts: Mapping[int, Tensor] | None = None,
        segments_S2: Tensor | None = None,
    ) -> tuple[Tensor, dict[int, Routing]]:
        """The main layers in this process, from hidden states to hidden states, and their routings."""
        rotation, routings = self._rotation(positions_BT), dict[int, Routing]()
        for index, block in self.model.blocks():
            layer_cache = None if cache is None else cache.layers[index]
            experts_NK = None if experts is None else experts.get(index)
            x_BTD, routing = self._run_block(block, x_BTD, rotation, layer_cache, experts_NK, segments_S2)
            if routing is not None:
                routings[index] = routing
        return x_BTD, routings

    def mtp_features(
        self,
        hidden_BTD: Tensor,
        next_ids_BT: Tensor,
        depth: int = 0,
        cache: ModelCache | None = None,
        positions_BT: Tensor | None = None,
    ) -> Features:
        """MTP module `depth`: states at t and tokens t + depth + 1 to states that predict one token further.

        `positions_BT` are the states' (default 0 onwards). A cache holds the module's entries like a layer's.
        """
        index, block = self.model.mtp_block(depth)
        if positions_BT is None:
            positions_BT = self._positions(next_ids_BT.shape, 0)
        x_BTD = block.merge(hidden_BTD, self._embed(next_ids_BT))
        layer_cache = None if cache is None else cache.layers[index]
        x_BTD, routing = self._run_block(block, x_BTD, self._rotation(positions_BT), layer_cache)
        return Features(block.shared_head.norm(x_BTD), {} if routing is None else {index: routing})

    def _run_block(
        self,
        block: Block,
        x_BTD: Tensor,
        rotation: Rotation,
        cache: LayerCache | None,
        experts_NK: Tensor | None = None,
        segments_S2: Tensor | None = None,
    ) -> tuple[Tensor, Routing | None]:
        """One layer; with gradient checkpointing only its input is kept, and the rest is computed again."""
        arguments = (x_BTD, rotation, cache, experts_NK, segments_S2)
        if self.gradient_checkpointing and cache is None and torch.is_grad_enabled():
            return checkpoint(block, *arguments, use_reentrant=False, preserve_rng_state=False)
        return block(*arguments)

    def new_cache(self, batch: int, capacity: int) -> DenseCache:
        """An empty dense cache for the main layers."""
        spec = attention_class(self.config).cache_spec(self.config)
        specs = [spec] * self.config.num_hidden_layers
        return DenseCache(specs, batch=batch, capacity=capacity, dtype=self.compute_dtype, device=self.device)

    def _embed(self, ids_BT: Tensor) -> Tensor:
        return self.model.embed_tokens(ids_BT).to(self.compute_dtype)

    def _positions(self, shape: torch.Size, start: int) -> Tensor:
        return torch.arange(start, start + shape[1], device=self.device).expand(shape)

    def _rotation(self, positions_BT: Tensor) -> Rotation:
        attention = self.config.attention
        width = attention.qk_rope_head_dim if isinstance(attention, MLAConfig) else attention.head_dim
        return build_rotation(self.config.rope, width, positions_BT)


@torch.no_grad()
def initialize(model: Transformer, generator: torch.Generator) -> Transformer:
    """Fill a model with random weights: matrices normal with `initializer_range`, norms one, biases zero."""
    std = model.config.initializer_range
    for name, parameter in model.named_parameters():
        if parameter.dim() > 1:
            parameter.normal_(0.0, std, generator=generator)
        else:
            parameter.fill_(0.0 if name.endswith("bias") else 1.0)
    for buffer in model.buffers():
        buffer.zero_()
    return model
