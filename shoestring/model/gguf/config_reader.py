"""Model configuration from GGUF metadata; every value is checked."""

import math
from dataclasses import replace

import numpy as np

from shoestring.errors import CheckpointError, ConfigError
from shoestring.model.check import check
from shoestring.model.config import GQAConfig, MLAConfig, ModelConfig, ModelType, MoEConfig, RopeConfig
from shoestring.model.gguf.config_writer import ARCHITECTURES, GATING, YARN_LOG_UNIT
from shoestring.model.gguf.file import GGUFFile
from shoestring.model.gguf.keys import Keys
from shoestring.model.gguf.names import ROPE_FACTORS
from shoestring.model.gguf.vocabulary.special import end_ids, role_id
from shoestring.model.yarn import cos_sin_factor

MODEL_TYPES: dict[str, ModelType] = {
    "llama": "llama",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "qwen3moe": "qwen3_moe",
}
MAX_HEAD = 1 << 16
QUANTIZATION_VERSION = 2
MAX_EXPERT_TENSORS = 1_000_000
"""Layers times experts; DeepSeek-V3 has 15,000."""


def read_config(file: GGUFFile) -> ModelConfig:
    """Read the ModelConfig of a GGUF file.

    Fields that GGUF does not have get their default (initializer_range), and MTP modules are left out. A
    deepseek2 file is deepseek_v3 if its router has a sigmoid or a bias or is absent, else deepseek_v2.
    Raises CheckpointError for another architecture, a missing key, an impossible or unsupported value, and a
    key that nothing here reads and that may change the model's outputs.
    """
    _check_general(file)
    keys = Keys(file)
    if keys.arch not in ARCHITECTURES.values():
        names = ", ".join(sorted(set(ARCHITECTURES.values())))
        raise CheckpointError(f"{file.path} is of architecture {keys.arch[:100]!r}; supported are {names}")
    layers = keys.size("block_count", most=4096) - keys.size("nextn_predict_layers", 0, least=0, most=64)
    vocab = keys.size("vocab_size", _rows(file, "token_embd.weight"))
    moe = _read_experts(keys, file, layers)
    deepseek_v2 = moe is not None and moe.scoring_func == "softmax" and moe.topk_method != "noaux_tc"
    heads = keys.size("attention.head_count", most=2**16)
    size = keys.size("embedding_length")
    config = ModelConfig(
        model_type=MODEL_TYPES.get(keys.arch, "deepseek_v2" if deepseek_v2 else "deepseek_v3"),
        vocab_size=vocab,
        hidden_size=size,
        intermediate_size=keys.size("feed_forward_length"),
        num_hidden_layers=layers,
        num_attention_heads=heads,
        attention=_read_mla(keys, heads) if keys.arch == "deepseek2" else _read_gqa(keys, file, heads, size),
        moe=moe,
        rope=_read_rope(keys, file),
        rms_norm_eps=keys.number("attention.layer_norm_rms_epsilon"),
        max_position_embeddings=keys.size("context_length"),
        tie_word_embeddings="output.weight" not in file.tensors,
        bos_token_id=role_id(file, "bos_token_id", vocab),
        pad_token_id=role_id(file, "padding_token_id", vocab),
    )  # fmt: skip
    config = config.with_end_tokens(end_ids(file, vocab))
    _check_window_and_scale(keys, config)
    keys.finish()
    try:
        check(config)
    except ConfigError as error:
        raise CheckpointError(f"{file.path}: {error}") from None
    return config


def _rows(file: GGUFFile, name: str) -> int:
    tensor = file.tensors.get(name)
    if tensor is None:
        raise CheckpointError(f"{file.path} lacks the tensor {name}; it is not a whole model")
    return tensor.shape[0]


def _read_mla(keys: Keys, heads: int) -> MLAConfig:
    # Files made before llama.cpp absorbed kv_b have the sizes of a head as key_length and value_length.
    is_absorbed = keys.has("attention.key_length_mla")
    rope = keys.size("rope.dimension_count", most=MAX_HEAD)
    key = keys.size(
        "attention.key_length_mla" if is_absorbed else "attention.key_length", least=rope + 1, most=MAX_HEAD
    )
    rank = keys.size("attention.kv_lora_rank")
    keys.must_be("attention.head_count_kv", 1, heads)
    if is_absorbed:
        keys.must_be("attention.key_length", rank + rope)
        keys.must_be("attention.value_length", rank)
    return MLAConfig(
        q_lora_rank=keys.size("attention.q_lora_rank", 0, least=0) or None,
        kv_lora_rank=rank,
        qk_nope_head_dim=key - rope,
        qk_rope_head_dim=rope,
        v_head_dim=keys.size(
            "attention.value_length_mla" if is_absorbed else "attention.value_length", most=MAX_HEAD
        ),
    )


def _read_gqa(keys: Keys, file: GGUFFile, heads: int, hidden_size: int) -> GQAConfig:
    width = keys.size("attention.key_length", max(hidden_size // heads, 1), most=MAX_HEAD)
    for name in ("attention.value_length", "rope.dimension_count"):
        if (size := keys.size(name, width)) != width:
            raise keys.error(name, size, f"supported: it must be {width}, the size of the keys")
    return GQAConfig(
        num_key_value_heads=keys.size("attention.head_count_kv", heads),
        head_dim=width,
        qkv_bias=keys.arch == "qwen2" or "blk.0.attn_q.bias" in file.tensors,
        o_bias=keys.arch != "qwen2" and "blk.0.attn_output.bias" in file.tensors,
        qk_norm=keys.arch in ("qwen3", "qwen3moe"),
    )


def _read_experts(keys: Keys, file: GGUFFile, layers: int) -> MoEConfig | None:
    experts = keys.size("expert_count", 0, least=0, most=2**16)
    if not experts:
        keys.ignore("leading_dense_block_count", "expert_")
        return None
    if keys.arch not in ("deepseek2", "qwen3moe"):
        raise keys.error("expert_count", experts, "supported in this architecture: only 0 is")
    if experts * layers > MAX_EXPERT_TENSORS:
        raise keys.error("expert_count", experts, f"possible in {layers} layers")
    moe = _read_moe(keys, file, experts) if keys.arch == "deepseek2" else _read_qwen_moe(keys, experts)
    keys.must_be("expert_shared_feed_forward_length", moe.n_shared_experts * moe.moe_intermediate_size, 0)
    return moe


def _read_moe(keys: Keys, file: GGUFFile, experts: int) -> MoEConfig:
    dense = keys.size("leading_dense_block_count", 0, least=0)
    groups = keys.size("expert_group_count", 1, least=0) or 1
    gating = keys.choice("expert_gating_func", GATING["softmax"], (0, *GATING.values()))
    has_bias = f"blk.{dense}.exp_probs_b.bias" in file.tensors
    return MoEConfig(
        n_routed_experts=experts,
        n_shared_experts=keys.size("expert_shared_count", 0, least=0, most=2**16),
        num_experts_per_tok=keys.size("expert_used_count"),
        moe_intermediate_size=keys.size("expert_feed_forward_length"),
        first_k_dense_replace=dense,
        scoring_func="sigmoid" if gating == GATING["sigmoid"] else "softmax",
        topk_method="noaux_tc" if has_bias else "group_limited_greedy" if groups > 1 else "greedy",
        n_group=groups,
        topk_group=keys.size("expert_group_used_count", groups, least=0) or groups,
        norm_topk_prob=keys.flag("expert_weights_norm", False),
        routed_scaling_factor=keys.number("expert_weights_scale", 1.0) or 1.0,  # 0 is none
    )


def _read_qwen_moe(keys: Keys, experts: int) -> MoEConfig:
    for name, values in (
        ("expert_gating_func", (GATING["softmax"], 0)),
        ("expert_weights_scale", (1, 0)),
        ("expert_group_count", (1, 0)),
    ):
        keys.must_be(name, *values)
    keys.ignore("expert_group_used_count")
    if not keys.flag("expert_weights_norm", True):
        raise keys.error("expert_weights_norm", False, "supported: only true is")
    return MoEConfig(
        n_routed_experts=experts,
        n_shared_experts=0,
        num_experts_per_tok=keys.size("expert_used_count"),
        moe_intermediate_size=keys.size("expert_feed_forward_length"),
        scoring_func="softmax",
        topk_method="greedy",
    )


def _read_rope(keys: Keys, file: GGUFFile) -> RopeConfig:
    plain = RopeConfig(rope_theta=keys.number("rope.freq_base", 10000.0), interleave=keys.arch == "deepseek2")
    kind, factor = _read_scaling(keys)
    if ROPE_FACTORS in file.tensors:
        from shoestring.model.gguf.rope import read_rope_scaling  # imports torch: 2 s

        if keys.arch != "llama":
            raise CheckpointError(
                f"{file.path}: {ROPE_FACTORS} is supported for llama only, not for {keys.arch}"
            )
        if factor != 1:
            raise keys.error("rope.scaling.factor", factor, f"supported beside {ROPE_FACTORS}: only 1 is")
        keys.must_be("rope.scaling.attn_factor", 1)
        return read_rope_scaling(file, plain, keys.size("rope.scaling.original_context_length", 8192))
    if kind == "yarn" and factor != 1:
        return _read_yarn(keys, plain, factor)
    keys.must_be("rope.scaling.attn_factor", 1)
    if factor == 1:
        keys.ignore("rope.scaling.original_context_length", "rope.scaling.yarn_")
        return plain
    if keys.arch == "deepseek2":
        raise keys.error("rope.scaling.type", kind, "supported for deepseek2 with a factor: only yarn is")
    keys.ignore("rope.scaling.original_context_length", "rope.scaling.yarn_")
    return replace(plain, rope_type="linear", factor=factor)


def _read_scaling(keys: Keys) -> tuple[str, float]:
    """Type and factor; as in llama.cpp a factor without a type is linear, also under its first name."""
    kind = keys.choice("rope.scaling.type", "linear", ("none", "linear", "yarn"))
    old = keys.number("rope.scale_linear", 0.0)
    factor = keys.number("rope.scaling.factor", old) or 1.0  # 0 is none
    return kind, 1.0 if kind == "none" else factor


def _read_yarn(keys: Keys, plain: RopeConfig, factor: float) -> RopeConfig:
    log_multiplier = keys.number("rope.scaling.yarn_log_multiplier", 0.0)
    mscale = round(log_multiplier / YARN_LOG_UNIT, 6) or None
    if mscale and keys.arch != "deepseek2":
        raise keys.error("rope.scaling.yarn_log_multiplier", log_multiplier, "supported: only 0 is")
    yarn = replace(
        plain,
        rope_type="yarn",
        factor=factor,
        original_max_position_embeddings=keys.size(
            "rope.scaling.original_context_length", keys.size("context_length")
        ),
        beta_fast=keys.number("rope.scaling.yarn_beta_fast", 32.0),
        beta_slow=keys.number("rope.scaling.yarn_beta_slow", 1.0),
        mscale=mscale,
        mscale_all_dim=mscale,
    )
    if keys.arch == "deepseek2":
        keys.must_be("rope.scaling.attn_factor", 1)
        return yarn
    relative = keys.number("rope.scaling.attn_factor", 1.0)
    if relative == 1:
        return yarn
    return replace(yarn, attention_factor=float(str(np.float32(relative * cos_sin_factor(yarn)))))


def _check_window_and_scale(keys: Keys, config: ModelConfig) -> None:
    """Refuse a window shorter than the context, and logits scaled by another number than usual."""
    window = keys.size("attention.sliding_window", 0, least=0)
    if 0 < window < config.max_position_embeddings:
        raise keys.error("attention.sliding_window", window, "supported: only 0 or the context_length is")
    attention = config.attention
    width = attention.qk_head_dim if isinstance(attention, MLAConfig) else attention.head_dim
    scale, usual = keys.number("attention.scale", 0.0), 1 / math.sqrt(width)
    if scale and not math.isclose(scale, usual, rel_tol=1e-5):
        raise keys.error("attention.scale", scale, f"supported: only {usual:.6g} or 0 is")


def _check_general(file: GGUFFile) -> None:
    """Refuse a file that is not a whole model, and quantization of another version than all models have."""
    kind = file.metadata.get("general.type", "model")
    if kind != "model":
        raise CheckpointError(f"{file.path} holds no model but general.type = {str(kind)[:40]!r}")
    version = file.metadata.get("general.quantization_version", QUANTIZATION_VERSION)
    if version != QUANTIZATION_VERSION:
        raise CheckpointError(
            f"{file.path}: general.quantization_version = {str(version)[:40]} is not supported: only "
            f"{QUANTIZATION_VERSION} is; convert the model again"
        )
