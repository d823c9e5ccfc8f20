"""FLOPs of sampling: tokens that are read and written over a cache."""

from dataclasses import dataclass

from shoestring.cost.matrices import block
from shoestring.cost.step import Flops, causal_pairs
from shoestring.model.config import MLAConfig, ModelConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingCounts:
    """Counts of sampling: they add up over requests."""

    read: int = 0
    """Tokens that went through the layers: prompts, and all of an answer but its last."""
    pairs: int = 0
    """Pairs of a query and a key in the cache, in one head."""
    draws: int = 0
    """Tokens that were drawn, each from its own logits."""

    def __add__(self, other: "SamplingCounts") -> "SamplingCounts":
        return SamplingCounts(
            read=self.read + other.read, pairs=self.pairs + other.pairs, draws=self.draws + other.draws
        )


def prompt(length: int) -> SamplingCounts:
    """A prompt that is read once, for all of its answers."""
    return SamplingCounts(read=length, pairs=causal_pairs(length))


def answer(prompt_length: int, length: int, draws: int | None = None) -> SamplingCounts:
    """An answer of `length` tokens, of which `draws` are the model's own (None: all)."""
    read = max(length - 1, 0)
    pairs = read * prompt_length + causal_pairs(read)
    return SamplingCounts(read=read, pairs=pairs, draws=length if draws is None else draws)


def sampling(config: ModelConfig, counts: SamplingCounts) -> Flops:
    """FLOPs of sampling over a cache; MLA in its absorbed form (V2 section 2.1.2), each key as its latent."""
    layers, attention = range(config.num_hidden_layers), config.attention
    weights = sum(matrix.weights for index in layers for matrix in block(config, index))
    if isinstance(attention, MLAConfig):
        values = 2 * attention.kv_lora_rank + attention.qk_rope_head_dim
    else:
        values = 2 * attention.head_dim
    per_pair = len(layers) * 2 * config.num_attention_heads * values
    head = 2 * config.vocab_size * config.hidden_size
    return {"sampling": 2 * weights * counts.read + per_pair * counts.pairs + head * counts.draws}
