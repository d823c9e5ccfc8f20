"""Memory of a training step, from a model's shape: the tokens that go through it together."""

import os

import torch

from shoestring.device import Runtime
from shoestring.model.config import MLAConfig, ModelConfig, MoEConfig

MOST_TOKENS = 16_384
LEAST_TOKENS = 256
CPU_BYTES = 2_000_000_000
"""Most bytes of activations on a CPU, where larger passes are no faster."""


def micro_tokens(config: ModelConfig, runtime: Runtime, *, gradient_checkpointing: bool) -> int:
    """Tokens of a forward pass whose activations fit: an eighth of a machine's memory, a half of a GPU's.

    The memory is that of the machine, not what is free: so it is the same at every start.
    """
    if runtime.device.type == "cuda":
        budget = torch.cuda.get_device_properties(runtime.device).total_memory // 2
    else:
        budget = min(_machine_bytes() // 8, CPU_BYTES)
    size = runtime.compute_dtype.itemsize
    tokens = budget // activation_bytes(config, size, gradient_checkpointing=gradient_checkpointing)
    return max(LEAST_TOKENS, min(tokens, MOST_TOKENS))


def activation_bytes(
    config: ModelConfig, bytes_per_element: int, *, gradient_checkpointing: bool = False
) -> int:
    """Bytes that a token's activations take until its backward pass, about: what each layer keeps for it.

    These are the inputs and outputs of linear layers and norms, and of a learned token its logits with their
    gradient, in float32. With gradient checkpointing they are each layer's input, and all of one layer.
    """
    layers = [
        _attention(config) + _feed_forward(config, index) + 6 * config.hidden_size  # two norms, two sums
        for index in range(config.num_hidden_layers + config.num_nextn_predict_layers)
    ]
    elements = len(layers) * config.hidden_size + max(layers) if gradient_checkpointing else sum(layers)
    heads = 1 + config.num_nextn_predict_layers
    return elements * bytes_per_element + heads * 3 * 4 * config.vocab_size


def _attention(config: ModelConfig) -> int:
    """Elements that attention keeps for a token: queries, keys and values, rotated too, and its output."""
    attention, num_heads = config.attention, config.num_attention_heads
    if not isinstance(attention, MLAConfig):
        kv = attention.num_key_value_heads * attention.head_dim
        return 3 * num_heads * attention.head_dim + 3 * kv
    latents = (attention.q_lora_rank or 0) + attention.kv_lora_rank
    head = 4 * attention.qk_head_dim + 2 * attention.v_head_dim
    return 2 * latents + num_heads * head


def _feed_forward(config: ModelConfig, index: int) -> int:
    """Elements that a feed-forward keeps for a token: gate, up, the gate's activation, and their product."""
    moe = config.moe
    if moe is None or not config.is_moe_layer(index):
        return 4 * config.intermediate_size
    return 4 * _experts_of(moe) * moe.moe_intermediate_size + 2 * moe.num_experts_per_tok * config.hidden_size


def _experts_of(moe: MoEConfig) -> int:
    return moe.num_experts_per_tok + moe.n_shared_experts


def _machine_bytes() -> int:
    """Memory of the machine; 8 GB where it does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return 8_000_000_000
