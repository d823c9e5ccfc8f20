"""Memory of a served model, in bytes, from its config alone: weights as stored or quantized, cache, pages."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

from shoestring.errors import ConfigError
from shoestring.model.config import MLAConfig, ModelConfig
from shoestring.model.cost import cache_bytes_per_token, parameters

Quantization = Literal["int8", "int4"]
"""Weights as integers, in groups of 32 that share a scale."""
BITS: dict[Quantization, Literal[8, 4]] = {"int8": 8, "int4": 4}
HEAD_BITS: Literal[8] = 8
"""The output head is int8 at least: its errors land on the logits themselves."""
RESERVE_BYTES = 700_000_000
"""Python, PyTorch and the activations of one step, beside weights and cache."""
PAGE_SIZE = 32
"""Tokens per page of the cache."""
GROUP, PANEL, SCALE_BYTES = 32, 16, 2
"""Depths that share a scale, and outputs that lie together, as in kernels/packed.py, which needs PyTorch."""


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes that serving a model takes."""

    weights: int
    cache: int
    programs: int = RESERVE_BYTES
    """Python, PyTorch and the activations of a step."""

    @property
    def total(self) -> int:
        return self.weights + self.cache + self.programs

    def __str__(self) -> str:
        parts = (self.weights, self.cache, self.programs)
        weights, cache, programs = (f"{part / 1e9:.1f}" for part in parts)
        return f"{self.total / 1e9:.1f} GB (weights {weights}, cache {cache}, programs {programs})"


def bits_of(quantization: Quantization) -> Literal[8, 4]:
    """Bits of a weight; ConfigError for a form of weights that this program does not make."""
    if quantization not in BITS:
        raise ConfigError(f"quantization {quantization!r} is not one of {', '.join(BITS)}")
    return BITS[quantization]


def weight_bytes(
    config: ModelConfig, quantization: Quantization | None = None, *, bytes_per_weight: int = 2
) -> int:
    """Bytes of the weights in memory; `bytes_per_weight` counts where there is no quantization."""
    count = parameters(config)
    total = count.total + count.mtp
    if quantization is None:
        return bytes_per_weight * total
    bits = bits_of(quantization)
    matrices = list(_packed_matrices(config))
    packed_bytes = sum(matrix.count * matrix.bytes_at(bits) for matrix in matrices)
    plain = total - count.embedding - sum(matrix.weights for matrix in matrices)
    if _divides(config.hidden_size):
        packed_bytes += _Matrix(config.vocab_size, config.hidden_size).bytes_at(max(bits, HEAD_BITS))
        plain -= count.head  # a tied head is packed too, and was not counted
    return packed_bytes + 2 * count.embedding + 4 * plain + _balance_bias_bytes(config)


def choose_quantization(config: ModelConfig, target_bytes: int, cache_bytes: int) -> Quantization | None:
    """The most exact form whose weights, cache and programs fit in `target_bytes`.

    Raises ConfigError, saying what the smallest would need.
    """
    need = 0
    for quantization in (None, *get_args(Quantization)):
        need = Memory(weights=weight_bytes(config, quantization), cache=cache_bytes).total
        if need <= target_bytes:
            return quantization
    raise ConfigError(
        f"the model needs {need / 1e9:.1f} GB at 4 bits with its cache, and {target_bytes / 1e9:.1f} GB were "
        "given; take a smaller model, a shorter context, or more memory"
    )


def read_bytes_per_token(config: ModelConfig, weights: int) -> float:
    """Bytes read for one token, out of `weights` bytes in all: the share of the active parameters."""
    count = parameters(config)
    return weights * count.active / (count.total + count.mtp)


def pages_for(tokens: int) -> int:
    """Pages that hold `tokens` tokens; the last may be partly empty."""
    return -(-tokens // PAGE_SIZE)


def page_bytes(config: ModelConfig, num_layers: int, bytes_per_element: int) -> int:
    """Bytes of one page of the cache over `num_layers` layers, an MTP module counted as a layer."""
    return PAGE_SIZE * cache_bytes_per_token(config, bytes_per_element, num_layers)


def cache_bytes(config: ModelConfig, tokens: int, num_layers: int, bytes_per_element: int) -> int:
    """Bytes of a paged cache for `tokens` tokens."""
    return pages_for(tokens) * page_bytes(config, num_layers, bytes_per_element)


@dataclass(frozen=True, slots=True)
class _Matrix:
    """A matrix (outputs, depth), or `count` of them, as kernels/packed.py lays it out."""

    outputs: int
    depth: int
    count: int = 1

    @property
    def weights(self) -> int:
        return self.count * self.outputs * self.depth

    def bytes_at(self, bits: int) -> int:
        """Bytes of one: blocks of 16 outputs and 32 depths, each with 16 scales."""
        blocks = -(-self.outputs // PANEL) * (self.depth // GROUP)
        return blocks * (PANEL * GROUP * bits // 8 + PANEL * SCALE_BYTES)


def _packed_matrices(config: ModelConfig) -> Iterator[_Matrix]:
    """Every matrix that is quantized, the head left out: those that groups of 32 divide."""
    modules = config.num_nextn_predict_layers
    for index in range(config.num_hidden_layers + modules):
        yield from _attention(config)
        yield from _feed_forward(config, index)
    if modules and _divides(2 * config.hidden_size):
        yield _Matrix(config.hidden_size, 2 * config.hidden_size, modules)  # eh_proj


def _attention(config: ModelConfig) -> Iterator[_Matrix]:
    attention, width, heads = config.attention, config.hidden_size, config.num_attention_heads
    if not isinstance(attention, MLAConfig):
        kv = attention.num_key_value_heads * attention.head_dim
        q = heads * attention.head_dim
        yield from _linear((q, width), (kv, width), (kv, width), (width, q))
        return
    rank, latent = attention.q_lora_rank, attention.kv_lora_rank
    q = heads * attention.qk_head_dim
    yield from _linear((q, width)) if rank is None else _linear((rank, width), (q, rank))
    yield from _linear((latent + attention.qk_rope_head_dim, width), (width, heads * attention.v_head_dim))
    if _divides(attention.qk_nope_head_dim, latent):  # kv_b_proj, by heads: keys transposed, values
        yield _Matrix(latent, attention.qk_nope_head_dim, heads)
        yield _Matrix(attention.v_head_dim, latent, heads)


def _feed_forward(config: ModelConfig, index: int) -> Iterator[_Matrix]:
    moe = config.moe
    if moe is None or not config.is_moe_layer(index):
        yield from _swiglu(config.hidden_size, config.intermediate_size)
        return
    if _divides(config.hidden_size, moe.moe_intermediate_size):
        yield from _swiglu(config.hidden_size, moe.moe_intermediate_size, moe.n_routed_experts)
    if moe.n_shared_experts:
        yield from _swiglu(config.hidden_size, moe.n_shared_experts * moe.moe_intermediate_size)


def _swiglu(width: int, hidden: int, count: int = 1) -> Iterator[_Matrix]:
    """Gate and up lie together when all three are quantized, else each linear layer is by itself."""
    if _divides(width, hidden):
        yield _Matrix(2 * hidden, width, count)
        yield _Matrix(width, hidden, count)
    else:
        yield from _linear((hidden, width), (hidden, width), (width, hidden))


def _linear(*shapes: tuple[int, int]) -> Iterator[_Matrix]:
    for outputs, depth in shapes:
        if _divides(depth):
            yield _Matrix(outputs, depth)


def _balance_bias_bytes(config: ModelConfig) -> int:
    """V3's balance bias is a float32 buffer beside the parameters."""
    moe, layers = config.moe, config.num_hidden_layers + config.num_nextn_predict_layers
    if moe is None or moe.topk_method != "noaux_tc":
        return 0
    return 4 * moe.n_routed_experts * sum(config.is_moe_layer(index) for index in range(layers))


def _divides(*depths: int) -> bool:
    return all(depth % GROUP == 0 for depth in depths)
