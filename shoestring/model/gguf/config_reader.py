"""Model configuration from GGUF metadata; every value is checked."""

from dataclasses import replace
from typing import Any

import numpy as np

from shoestring.errors import CheckpointError, ConfigError
from shoestring.model.check import check
from shoestring.model.config import GQAConfig, MLAConfig, ModelConfig, ModelType, MoEConfig, RopeConfig
from shoestring.model.gguf.config_writer import ARCHITECTURES, GATING, YARN_LOG_UNIT
from shoestring.model.gguf.file import GGUFFile
from shoestring.model.gguf.names import ROPE_FACTORS
from shoestring.model.gguf.tokenizer import END_KEYS
from shoestring.model.yarn import cos_sin_factor

MODEL_TYPES: dict[str, ModelType] = {
    "llama": "llama",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "qwen3moe": "qwen3_moe",
}
MAX_HEAD = 1 << 16
MAX_FLOAT32 = 3e38
MAX_EXPERT_TENSORS = 1_000_000
"""Layers times experts; DeepSeek-V3 has 15,000."""


def read_config(file: GGUFFile) -> ModelConfig:
    """Read the ModelConfig of a GGUF file.

    Fields that GGUF does not have get their default (initializer_range), and MTP modules are left out. A
    deepseek2 file is deepseek_v3 if its router has a sigmoid or a bias or is absent, else deepseek_v2.
    Raises CheckpointError for another architecture, a missing key, and an impossible or unsupported value.
    """
    keys = _Keys(file)
    if keys.arch not in ARCHITECTURES.values():
        names = ", ".join(sorted(set(ARCHITECTURES.values())))
        raise CheckpointError(f"{file.path} is of architecture {keys.arch[:100]!r}; supported are {names}")
    layers = keys.size("block_count", most=4096) - keys.size("nextn_predict_layers", 0, least=0, most=64)
    vocab = keys.size("vocab_size", _rows(file, "token_embd.weight"))
    moe = None
    if keys.arch in ("deepseek2", "qwen3moe"):
        moe = _read_moe(keys, file, layers) if keys.arch == "deepseek2" else _read_qwen_moe(keys, layers)
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
        attention=_read_mla(keys) if keys.arch == "deepseek2" else _read_gqa(keys, file, heads, size),
        moe=moe,
        rope=_read_rope(keys, file),
        rms_norm_eps=keys.number("attention.layer_norm_rms_epsilon"),
        max_position_embeddings=keys.size("context_length"),
        tie_word_embeddings="output.weight" not in file.tensors,
        bos_token_id=keys.token("bos_token_id", vocab),
        pad_token_id=keys.token("padding_token_id", vocab),
    )  # fmt: skip
    end_ids = [keys.token(key, vocab) for key in END_KEYS]
    config = config.with_end_tokens(token_id for token_id in end_ids if token_id is not None)
    try:
        check(config)
    except ConfigError as error:
        raise CheckpointError(f"{file.path}: {error}") from None
    return config


class _Keys:
    """Typed access to the metadata of one file, by key without the prefix of the architecture."""

    def __init__(self, file: GGUFFile) -> None:
        self._file = file
        arch = file.metadata.get("general.architecture")
        if not isinstance(arch, str):
            raise CheckpointError(f"{file.path} does not name its general.architecture; convert it again")
        self.arch = arch

    def has(self, name: str) -> bool:
        return f"{self.arch}.{name}" in self._file.metadata

    def size(self, name: str, default: int | None = None, *, least: int = 1, most: int = 2**31 - 1) -> int:
        value = self._get(name, default)
        if type(value) is not int or not least <= value <= most:
            raise self.error(name, value, f"a whole number from {least} to {most}")
        return value

    def number(self, name: str, default: float | None = None) -> float:
        value = self._get(name, default)
        if type(value) not in (int, float) or not abs(value) <= MAX_FLOAT32:  # refuses NaN too
            raise self.error(name, value, "a number")
        return float(str(np.float32(value)))  # the shortest decimal: 1e-06, not 9.99999997e-07

    def flag(self, name: str, default: bool) -> bool:
        value = self._get(name, default)
        if type(value) is not bool:
            raise self.error(name, value, "true or false")
        return value

    def choice(self, name: str, default: Any, options: tuple[Any, ...]) -> Any:
        value = self._get(name, default)
        if not isinstance(value, str | int) or value not in options:
            raise self.error(name, value, f"one of {', '.join(map(str, options))}")
        return value

    def token(self, name: str, vocab_size: int) -> int | None:
        """Id of a special token; some programs write -1 or too large a number for none."""
        value = self._file.metadata.get(f"tokenizer.ggml.{name}")
        return value if type(value) is int and 0 <= value < vocab_size else None

    def error(self, name: str, value: object, rule: str) -> CheckpointError:
        return CheckpointError(f"{self._file.path}: {self.arch}.{name} = {str(value)[:80]} is not {rule}")

    def _get(self, name: str, default: Any) -> Any:
        value = self._file.metadata.get(f"{self.arch}.{name}", default)
        if value is None:
            raise CheckpointError(f"{self._file.path} lacks the key {self.arch}.{name}; convert it again")
        return value


def _rows(file: GGUFFile, name: str) -> int:
    tensor = file.tensors.get(name)
    if tensor is None:
        raise CheckpointError(f"{file.path} lacks the tensor {name}; it is not a whole model")
    return tensor.shape[0]


def _read_mla(keys: _Keys) -> MLAConfig:
    # Files made before llama.cpp absorbed kv_b have the sizes of a head as key_length and value_length.
    is_absorbed = keys.has("attention.key_length_mla")
    rope = keys.size("rope.dimension_count", most=MAX_HEAD)
    key = keys.size(
        "attention.key_length_mla" if is_absorbed else "attention.key_length", least=rope + 1, most=MAX_HEAD
    )
    return MLAConfig(
        q_lora_rank=keys.size("attention.q_lora_rank", 0, least=0) or None,
        kv_lora_rank=keys.size("attention.kv_lora_rank"),
        qk_nope_head_dim=key - rope,
        qk_rope_head_dim=rope,
        v_head_dim=keys.size(
            "attention.value_length_mla" if is_absorbed else "attention.value_length", most=MAX_HEAD
        ),
    )


def _read_gqa(keys: _Keys, file: GGUFFile, heads: int, hidden_size: int) -> GQAConfig:
    width = keys.size("attention.key_length", max(hidden_size // heads, 1), most=MAX_HEAD)
    for name in ("attention.value_length", "rope.dimension_count"):
        if (size := keys.size(name, width)) != width:
            raise keys.error(name, size, f"supported: it must be {width}, the size of the keys")
    if keys.arch != "qwen3moe" and keys.size("expert_count", 0, least=0):
        raise keys.error("expert_count", keys.size("expert_count"), "supported in this architecture")
    return GQAConfig(
        num_key_value_heads=keys.size("attention.head_count_kv", heads),
        head_dim=width,
        qkv_bias=keys.arch == "qwen2" or "blk.0.attn_q.bias" in file.tensors,
        o_bias=keys.arch != "qwen2" and "blk.0.attn_output.bias" in file.tensors,
        qk_norm=keys.arch in ("qwen3", "qwen3moe"),
    )


def _read_moe(keys: _Keys, file: GGUFFile, layers: int) -> MoEConfig | None:
    experts = keys.size("expert_count", 0, least=0, most=2**16)
    if not experts:
        return None
    if experts * layers > MAX_EXPERT_TENSORS:
        raise keys.error("expert_count", experts, f"possible in {layers} layers")
    dense = keys.size("leading_dense_block_count", 0, least=0)
    groups = keys.size("expert_group_count", 1, least=0) or 1
    gating = keys.choice("expert_gating_func", GATING["softmax"], tuple(GATING.values()))
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
        routed_scaling_factor=keys.number("expert_weights_scale", 1.0),
    )


def _read_qwen_moe(keys: _Keys, layers: int) -> MoEConfig:
    experts = keys.size("expert_count", most=2**16)
    if experts * layers > MAX_EXPERT_TENSORS:
        raise keys.error("expert_count", experts, f"possible in {layers} layers")
    return MoEConfig(
        n_routed_experts=experts,
        n_shared_experts=0,
        num_experts_per_tok=keys.size("expert_used_count"),
        moe_intermediate_size=keys.size("expert_feed_forward_length"),
        scoring_func="softmax",
        topk_method="greedy",
    )


def _read_rope(keys: _Keys, file: GGUFFile) -> RopeConfig:
    plain = RopeConfig(rope_theta=keys.number("rope.freq_base", 10000.0), interleave=keys.arch == "deepseek2")
    if ROPE_FACTORS in file.tensors:
        from shoestring.model.gguf.rope import read_rope_scaling  # imports torch: 2 s

        if keys.arch != "llama":
            raise CheckpointError(
                f"{file.path}: {ROPE_FACTORS} is supported for llama only, not for {keys.arch}"
            )
        return read_rope_scaling(file, plain, keys.size("rope.scaling.original_context_length", 8192))
    kind = keys.choice("rope.scaling.type", "none", ("none", "linear", "yarn"))
    factor = keys.number("rope.scaling.factor", 1.0)
    if kind == "none" or factor == 1.0:
        return plain
    if kind == "linear":
        return replace(plain, rope_type="linear", factor=factor)
    log_multiplier = keys.number("rope.scaling.yarn_log_multiplier", 0.0)
    mscale = round(log_multiplier / YARN_LOG_UNIT, 6) if keys.arch == "deepseek2" and log_multiplier else None
    yarn = replace(
        plain,
        rope_type="yarn",
        factor=factor,
        original_max_position_embeddings=keys.size("rope.scaling.original_context_length"),
        beta_fast=keys.number("rope.scaling.yarn_beta_fast", 32.0),
        beta_slow=keys.number("rope.scaling.yarn_beta_slow", 1.0),
        mscale=mscale,
        mscale_all_dim=mscale,
    )
    if keys.arch == "deepseek2" or not keys.has("rope.scaling.attn_factor"):
        return yarn
    relative = keys.number("rope.scaling.attn_factor")
    if relative == 1:
        return yarn
    return replace(yarn, attention_factor=float(str(np.float32(relative * cos_sin_factor(yarn)))))
