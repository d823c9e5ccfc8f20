"""Bytes of the activations of a training step: what each layer keeps of a token for its backward pass."""

from shoestring.model.config import MLAConfig, ModelConfig, MoEConfig

LAYER_SIZES = 3
"""Sizes of a layer that is computed again: with its gradients, as bench/memory.py measures."""


def activation_bytes(
    config: ModelConfig, bytes_per_element: int, *, gradient_checkpointing: bool = False
) -> int:
    """Bytes that a token's activations take until its backward pass, about: what each layer keeps for it.

    Of a learned token its logits with their gradient are counted too, in float32.
    """
    layers = layer_bytes(config, bytes_per_element, gradient_checkpointing=gradient_checkpointing)
    return layers + (1 + config.num_nextn_predict_layers) * 3 * 4 * config.vocab_size


def layer_bytes(config: ModelConfig, bytes_per_element: int, *, gradient_checkpointing: bool = False) -> int:
    """Bytes that the layers keep of a token: inputs and outputs of linear layers and norms.

    With gradient checkpointing they are each layer's input, and all of one layer: LAYER_SIZES times, with
    its gradients and what the allocator keeps.
    """
    layers = [
        _attention(config) + _feed_forward(config, index) + 6 * config.hidden_size  # two norms, two sums
        for index in range(config.num_hidden_layers + config.num_nextn_predict_layers)
    ]
    if gradient_checkpointing:
        return (len(layers) * config.hidden_size + LAYER_SIZES * max(layers)) * bytes_per_element
    elements = sum(layers)
    return elements * bytes_per_element


def _attention(config: ModelConfig) -> int:
    """Elements that attention keeps for a token: queries, keys and values, and its output."""
    attention, num_heads = config.attention, config.num_attention_heads
    if not isinstance(attention, MLAConfig):
        kv = attention.num_key_value_heads * attention.head_dim
        return 2 * num_heads * attention.head_dim + 2 * kv
    latents = (attention.q_lora_rank or 0) + attention.kv_lora_rank
    head = 4 * attention.qk_head_dim + 2 * attention.v_head_dim
    return 2 * latents + num_heads * head


def _feed_forward(config: ModelConfig, index: int) -> int:
    """Elements that a feed-forward keeps for a token: gate, up and their product."""
    moe = config.moe
    if moe is None or not config.is_moe_layer(index):
        return 3 * config.intermediate_size
    return 4 * _experts_of(moe) * moe.moe_intermediate_size + 2 * moe.num_experts_per_tok * config.hidden_size


def _experts_of(moe: MoEConfig) -> int:
    return moe.num_experts_per_tok + moe.n_shared_experts
