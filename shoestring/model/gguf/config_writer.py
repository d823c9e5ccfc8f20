"""Model configuration to GGUF metadata, with llama.cpp's keys for llama, qwen2, qwen3 and deepseek2.

A model that llama.cpp would compute differently is refused, with the reason.
"""

import logging
from dataclasses import replace
from typing import Any

from shoestring.errors import ConfigError
from shoestring.model.config import GQAConfig, MLAConfig, ModelConfig
from shoestring.model.yarn import cos_sin_factor

log = logging.getLogger(__name__)

ARCHITECTURES = {
    **{"llama": "llama", "qwen2": "qwen2", "qwen3": "qwen3", "qwen3_moe": "qwen3moe"},
    **{"deepseek_v2": "deepseek2", "deepseek_v3": "deepseek2"},
}
GATING = {"softmax": 1, "sigmoid": 2}
"""Numbers of llama.cpp for expert_gating_func."""
YARN_LOG_UNIT = 0.1
"""yarn_log_multiplier is 0.1 mscale_all_dim in llama.cpp's converter; its loader divides by 0.1."""


def write_config(config: ModelConfig) -> dict[str, Any]:
    """Metadata of a model. Raises ConfigError for a model that llama.cpp computes differently."""
    arch = ARCHITECTURES[config.model_type]
    if (arch == "deepseek2") != isinstance(config.attention, MLAConfig):
        raise _refusal("model_type", config.model_type, "only its deepseek2 has latent attention")
    values: dict[str, Any] = {
        "vocab_size": config.vocab_size,
        "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size,
        "block_count": config.num_hidden_layers,
        "feed_forward_length": config.intermediate_size,
        "attention.head_count": config.num_attention_heads,
        "attention.layer_norm_rms_epsilon": config.rms_norm_eps,
        "rope.freq_base": config.rope.rope_theta,
    }
    if isinstance(config.attention, MLAConfig):
        values |= _write_mla(config, config.attention) | _write_moe(config)
    else:
        values |= _write_gqa(config, config.attention) | _write_qwen_moe(config)
    values |= _write_rope(config)
    return {"general.architecture": arch} | {f"{arch}.{name}": value for name, value in values.items()}


def _write_mla(config: ModelConfig, mla: MLAConfig) -> dict[str, Any]:
    if mla.attention_bias:
        raise _refusal("attention_bias", True, "its deepseek2 has no biases")
    layers = config.num_hidden_layers
    lite = layers in (26, 27) or (layers == 48 and config.vocab_size == 128256)
    if lite and mla.q_lora_rank is not None:
        raise _refusal(
            "q_lora_rank", mla.q_lora_rank, f"it assumes that every deepseek2 of {layers} layers has none"
        )
    if config.rms_norm_eps != 1e-6:
        log.warning(
            "llama.cpp normalizes latents with rms_norm_eps %g, DeepSeek with 1e-6", config.rms_norm_eps
        )
    return {
        "attention.head_count_kv": 1,  # absorbed: all heads read one latent
        "attention.q_lora_rank": mla.q_lora_rank or 0,
        "attention.kv_lora_rank": mla.kv_lora_rank,
        "attention.key_length": mla.kv_lora_rank + mla.qk_rope_head_dim,
        "attention.value_length": mla.kv_lora_rank,
        "attention.key_length_mla": mla.qk_head_dim,
        "attention.value_length_mla": mla.v_head_dim,
        "rope.dimension_count": mla.qk_rope_head_dim,
    }


def _write_moe(config: ModelConfig) -> dict[str, Any]:
    moe = config.moe
    if moe is None:  # llama.cpp needs these keys for dense models too
        return {
            "leading_dense_block_count": config.num_hidden_layers,
            "expert_feed_forward_length": config.intermediate_size,
            "expert_shared_count": 0,
        }
    if moe.n_shared_experts == 0:
        raise _refusal("n_shared_experts", 0, "its deepseek2 always has one")
    if moe.moe_layer_freq != 1:
        raise _refusal("moe_layer_freq", moe.moe_layer_freq, "only its first layers may be dense")
    values = {
        "leading_dense_block_count": moe.first_k_dense_replace,
        "expert_feed_forward_length": moe.moe_intermediate_size,
        "expert_shared_count": moe.n_shared_experts,
        "expert_count": moe.n_routed_experts,
        "expert_used_count": moe.num_experts_per_tok,
        "expert_gating_func": GATING[moe.scoring_func],
        "expert_weights_scale": moe.routed_scaling_factor,
        "expert_weights_norm": moe.norm_topk_prob,
    }
    if moe.topk_method == "greedy" or moe.topk_group == moe.n_group:
        return values  # no group is excluded
    if moe.topk_method == "group_limited_greedy":
        log.warning("llama.cpp ranks groups by two experts, DeepSeek-V2 by one: outputs may differ")
    return values | {"expert_group_count": moe.n_group, "expert_group_used_count": moe.topk_group}


def _write_gqa(config: ModelConfig, gqa: GQAConfig) -> dict[str, Any]:
    if gqa.qk_norm != config.model_type.startswith("qwen3"):
        raise _refusal("qk_norm", gqa.qk_norm, "only its qwen3 normalizes queries and keys, and always")
    if gqa.qk_norm and (gqa.qkv_bias or gqa.o_bias):
        raise _refusal("attention_bias", True, "its qwen3 has no biases")
    if config.rope.interleave:
        raise _refusal("rope.interleave", True, f"its {config.model_type} rotates halves")
    if config.model_type == "qwen2":
        if gqa.head_dim * config.num_attention_heads != config.hidden_size:
            raise _refusal(
                "head_dim", gqa.head_dim, "the heads of its qwen2 have hidden_size columns together"
            )
        if gqa.o_bias:
            raise _refusal("o_bias", True, "its qwen2 has none")
    return {
        "attention.head_count_kv": gqa.num_key_value_heads,
        "attention.key_length": gqa.head_dim,
        "attention.value_length": gqa.head_dim,
        "rope.dimension_count": gqa.head_dim,
    }


def _write_qwen_moe(config: ModelConfig) -> dict[str, Any]:
    moe = config.moe
    if (moe is not None) != (config.model_type == "qwen3_moe"):
        experts = None if moe is None else moe.n_routed_experts
        raise _refusal("n_routed_experts", experts, "only its qwen3moe has experts")
    if moe is None:
        return {}
    if len(config.moe_layers) != config.num_hidden_layers:
        raise _refusal("mlp_only_layers", moe.mlp_only_layers, "its qwen3moe has experts in every layer")
    if not moe.norm_topk_prob:
        raise _refusal("norm_topk_prob", False, "its qwen3moe always divides the gates by their sum")
    return {
        "expert_feed_forward_length": moe.moe_intermediate_size,
        "expert_count": moe.n_routed_experts,
        "expert_used_count": moe.num_experts_per_tok,
    }


def _write_rope(config: ModelConfig) -> dict[str, Any]:
    rope, deepseek = config.rope, isinstance(config.attention, MLAConfig)
    if rope.rope_type == "default":
        return {}
    if rope.rope_type == "llama3":
        if config.model_type != "llama":
            raise _refusal("rope_type", "llama3", "only its llama reads frequency factors")
        return {"rope.scaling.original_context_length": rope.original_max_position_embeddings}
    if rope.rope_type == "linear":
        if deepseek:
            raise _refusal("rope_type", "linear", "its deepseek2 scales the logits as for yarn")
        return {"rope.scaling.type": "linear", "rope.scaling.factor": rope.factor}
    # llama.cpp has one mscale for deepseek2 and none for the other architectures.
    if rope.mscale != rope.mscale_all_dim or bool(rope.mscale) != deepseek:
        raise _refusal(
            "mscale",
            rope.mscale,
            "it must equal mscale_all_dim in DeepSeek's models, and other models have none",
        )
    values: dict[str, Any] = {
        "rope.scaling.type": "yarn",
        "rope.scaling.factor": rope.factor,
        "rope.scaling.original_context_length": rope.original_max_position_embeddings,
        "rope.scaling.yarn_beta_fast": rope.beta_fast,
        "rope.scaling.yarn_beta_slow": rope.beta_slow,
    }
    if rope.attention_factor is not None:
        if deepseek:
            raise _refusal("attention_factor", rope.attention_factor, "its deepseek2 computes its own")
        usual = cos_sin_factor(replace(rope, attention_factor=None))
        values["rope.scaling.attn_factor"] = rope.attention_factor / usual
    if rope.mscale_all_dim:
        values["rope.scaling.yarn_log_multiplier"] = YARN_LOG_UNIT * rope.mscale_all_dim
    return values


def _refusal(name: str, value: object, why: str) -> ConfigError:
    return ConfigError(f"{name} = {value} cannot be exported to GGUF: llama.cpp cannot compute it, {why}")
