"""The matrices of a block, with their names, shapes and how many of them a token is multiplied by."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from shoestring.model.config import MLAConfig, ModelConfig

Kind = Literal["attention", "mlp", "experts", "router", "mtp"]


@dataclass(frozen=True, slots=True)
class Matrix:
    """A matrix of a block, or `count` equal ones, of which a token is multiplied by `per_token`."""

    name: str
    """The end of its name in Hugging Face's model."""
    kind: Kind
    outputs: int
    inputs: int
    count: int = 1
    per_token: int = 1

    @property
    def weights(self) -> int:
        """Weights that one token is multiplied by."""
        return self.per_token * self.outputs * self.inputs

    @property
    def stored(self) -> int:
        return self.count * self.outputs * self.inputs


def block(config: ModelConfig, index: int) -> list[Matrix]:
    """The matrices of layer `index`, in the order of the computation; MTP modules come after the layers."""
    merge = [Matrix("eh_proj", "mtp", config.hidden_size, 2 * config.hidden_size)]
    return [
        *(merge if index >= config.num_hidden_layers else ()),
        *_attention(config),
        *_feed_forward(config, index),
    ]


def _attention(config: ModelConfig) -> Iterator[Matrix]:
    attention, width, heads = config.attention, config.hidden_size, config.num_attention_heads
    if not isinstance(attention, MLAConfig):
        q, kv = heads * attention.head_dim, attention.num_key_value_heads * attention.head_dim
        for name, outputs in (("q_proj", q), ("k_proj", kv), ("v_proj", kv)):
            yield Matrix(name, "attention", outputs, width)
        yield Matrix("o_proj", "attention", width, q)
        return
    q, rank, latent = heads * attention.qk_head_dim, attention.q_lora_rank, attention.kv_lora_rank
    if rank is None:
        yield Matrix("q_proj", "attention", q, width)
    else:
        yield Matrix("q_a_proj", "attention", rank, width)
        yield Matrix("q_b_proj", "attention", q, rank)
    yield Matrix("kv_a_proj_with_mqa", "attention", latent + attention.qk_rope_head_dim, width)
    keys_and_values = heads * (attention.qk_nope_head_dim + attention.v_head_dim)
    yield Matrix("kv_b_proj", "attention", keys_and_values, latent)
    yield Matrix("o_proj", "attention", width, heads * attention.v_head_dim)


def _feed_forward(config: ModelConfig, index: int) -> Iterator[Matrix]:
    moe, width = config.moe, config.hidden_size
    if moe is None or not config.is_moe_layer(index):
        yield from _swiglu("mlp", width, config.intermediate_size)
        return
    count, per_token, hidden = moe.n_routed_experts, moe.num_experts_per_tok, moe.moe_intermediate_size
    yield Matrix("gate", "router", count, width)
    yield Matrix("experts.gate_up_proj", "experts", 2 * hidden, width, count, per_token)
    yield Matrix("experts.down_proj", "experts", width, hidden, count, per_token)
    if moe.n_shared_experts:
        yield from _swiglu("shared_experts", width, moe.n_shared_experts * hidden)


def _swiglu(module: str, width: int, hidden: int) -> Iterator[Matrix]:
    yield Matrix(f"{module}.gate_proj", "mlp", hidden, width)
    yield Matrix(f"{module}.up_proj", "mlp", hidden, width)
    yield Matrix(f"{module}.down_proj", "mlp", width, hidden)
