"""Checks that the numbers of a ModelConfig fit together, before a model is built."""

import math

from shoestring.errors import ConfigError
from shoestring.model.config import GQAConfig, MLAConfig, ModelConfig, MoEConfig, RopeConfig


def check(config: ModelConfig) -> None:
    """Raise ConfigError naming the first field whose value is impossible with the others."""
    for name in (
        "vocab_size",
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
    ):
        _require(getattr(config, name) >= 1, name, getattr(config, name), "must be at least 1")
    _require(config.rms_norm_eps > 0, "rms_norm_eps", config.rms_norm_eps, "must be above 0")
    if isinstance(config.attention, MLAConfig):
        _check_mla(config.attention)
    else:
        _check_gqa(config.attention, config.num_attention_heads)
    if config.moe is not None:
        _check_moe(config.moe)
    _check_rope(config.rope)


def _check_mla(mla: MLAConfig) -> None:
    for name in ("kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim"):
        _require(getattr(mla, name) >= 1, name, getattr(mla, name), "must be at least 1")
    _require(
        mla.q_lora_rank is None or mla.q_lora_rank >= 1, "q_lora_rank", mla.q_lora_rank, "must be at least 1"
    )
    _require(mla.qk_rope_head_dim % 2 == 0, "qk_rope_head_dim", mla.qk_rope_head_dim, "must be even")


def _check_gqa(gqa: GQAConfig, heads: int) -> None:
    groups = gqa.num_key_value_heads
    _require(
        groups >= 1 and heads % groups == 0,
        "num_key_value_heads",
        groups,
        f"must divide num_attention_heads = {heads}",
    )
    _require(gqa.head_dim >= 2 and gqa.head_dim % 2 == 0, "head_dim", gqa.head_dim, "must be even")


def _check_moe(moe: MoEConfig) -> None:
    experts, groups = moe.n_routed_experts, moe.n_group
    _require(
        moe.moe_intermediate_size >= 1,
        "moe_intermediate_size",
        moe.moe_intermediate_size,
        "must be at least 1",
    )
    _require(moe.n_shared_experts >= 0, "n_shared_experts", moe.n_shared_experts, "must not be negative")
    _require(
        min(moe.mlp_only_layers, default=0) >= 0,
        "mlp_only_layers",
        moe.mlp_only_layers,
        "must not be negative",
    )
    _require(moe.moe_layer_freq >= 1, "moe_layer_freq", moe.moe_layer_freq, "must be at least 1")
    _require(
        groups >= 1 and experts % groups == 0, "n_group", groups, f"must divide n_routed_experts = {experts}"
    )
    _require(1 <= moe.topk_group <= groups, "topk_group", moe.topk_group, f"must be 1 to n_group = {groups}")
    reachable = experts if moe.topk_method == "greedy" else experts // groups * moe.topk_group
    _require(
        1 <= moe.num_experts_per_tok <= reachable,
        "num_experts_per_tok",
        moe.num_experts_per_tok,
        f"must be 1 to {reachable}, the experts that routing can reach",
    )
    if moe.topk_method == "noaux_tc":  # a group's score is the sum of its best two (V3, section 2.1.2)
        _require(
            experts // groups >= 2,
            "n_group",
            groups,
            f"leaves groups of one of {experts} experts; they need two",
        )


def _check_rope(rope: RopeConfig) -> None:
    _require(
        math.isfinite(rope.rope_theta) and rope.rope_theta > 1,
        "rope_theta",
        rope.rope_theta,
        "must be above 1",
    )
    _require(math.isfinite(rope.factor) and rope.factor >= 1, "factor", rope.factor, "must be at least 1")
    _require(
        rope.attention_factor is None or 0 < rope.attention_factor < math.inf,
        "attention_factor",
        rope.attention_factor,
        "must be above 0",
    )
    if rope.rope_type in ("yarn", "llama3"):
        original = rope.original_max_position_embeddings
        _require(
            original is not None and original >= 1,
            "original_max_position_embeddings",
            original,
            f"is needed by rope_type {rope.rope_type!r}",
        )
    if rope.rope_type == "llama3":
        low, high = rope.low_freq_factor, rope.high_freq_factor
        _require(
            0 < low < high, "low_freq_factor", low, f"must be above 0 and below high_freq_factor = {high}"
        )


def _require(condition: bool, name: str, value: object, rule: str) -> None:
    if not condition:
        raise ConfigError(f"{name} = {value} {rule}")
