"""Hugging Face's config.json to ModelConfig and back: deepseek_v3, deepseek_v2, qwen2, llama."""

import json
from pathlib import Path
from typing import Any, get_args

from shoestring.durable import write_atomic
from shoestring.errors import ConfigError
from shoestring.model.check import check
from shoestring.model.config import GQAConfig, MLAConfig, ModelConfig, ModelType, MoEConfig
from shoestring.model.hf.fields import INERT, SINGLE_VALUED, Fields
from shoestring.model.hf.rope import read_rope, write_rope

CONFIG_NAME = "config.json"
MAX_CONFIG_BYTES = 10_000_000

ARCHITECTURES = {
    "deepseek_v3": "DeepseekV3ForCausalLM",
    "deepseek_v2": "DeepseekV2ForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "llama": "LlamaForCausalLM",
}


def save_config(config: ModelConfig, folder: Path, *, dtype: str | None = None) -> None:
    """Write `folder`/config.json. ConfigError for a shape Hugging Face has no name for, StorageError."""
    text = json.dumps(to_hf(config, dtype=dtype), indent=2, sort_keys=True) + "\n"
    write_atomic(Path(folder) / CONFIG_NAME, text)


def from_hf(data: dict[str, Any], where: str = CONFIG_NAME) -> ModelConfig:
    """The ModelConfig of a config.json, as DeepSeek publishes it or transformers 4 and 5 write it.

    Raises ConfigError naming a field that is unknown, has a value that this code does not compute, or a size
    that does not fit the others.
    """
    model_type: Any = data.get("model_type")
    if model_type not in get_args(ModelType):
        types = ", ".join(get_args(ModelType))
        raise ConfigError(
            f"{where}: model_type {str(model_type)[:100]!r} is not supported; this code runs {types}"
        )
    fields = Fields(data, where)
    for name, value in SINGLE_VALUED.items():
        fields.must_be(name, value)
    fields.full_attention_everywhere()
    heads = fields.size("num_attention_heads", most=2**16)
    hidden_size = fields.size("hidden_size")
    max_positions = fields.size("max_position_embeddings")
    deepseek = model_type.startswith("deepseek")
    config = ModelConfig(
        model_type=model_type,
        vocab_size=fields.size("vocab_size"),
        hidden_size=hidden_size,
        intermediate_size=fields.size("intermediate_size"),
        num_hidden_layers=fields.size("num_hidden_layers", most=4096),
        num_attention_heads=heads,
        attention=_read_mla(fields, heads) if deepseek else _read_gqa(fields, heads, hidden_size, model_type),
        moe=_read_moe(fields, model_type) if deepseek else None,
        rope=read_rope(fields, max_positions, model_type),
        rms_norm_eps=fields.number("rms_norm_eps", 1e-6),
        max_position_embeddings=max_positions,
        tie_word_embeddings=fields.flag("tie_word_embeddings", False),
        num_nextn_predict_layers=_read_mtp(fields, model_type),
        initializer_range=fields.number("initializer_range", 0.02),
        bos_token_id=fields.size("bos_token_id", None, least=0),
        eos_token_id=fields.token_ids("eos_token_id"),
        pad_token_id=fields.size("pad_token_id", None, least=0),
    )
    fields.finish(INERT)
    try:
        check(config)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None
    return config


def to_hf(config: ModelConfig, *, dtype: str | None = None) -> dict[str, Any]:
    """The config.json of `config`, with the fields that every engine reads (`rope_theta`, `rope_scaling`).

    `dtype` is the weights', such as "bfloat16". Raises ConfigError when no published architecture fits.
    """
    deepseek = config.model_type.startswith("deepseek")
    if deepseek != isinstance(config.attention, MLAConfig) or (config.moe is not None and not deepseek):
        raise ConfigError(
            f"Hugging Face's {config.model_type} cannot express this model: it has "
            + ("latent attention" if deepseek else "grouped-query attention and no experts")
        )
    data: dict[str, Any] = {
        "architectures": [ARCHITECTURES[config.model_type]],
        "model_type": config.model_type,
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.num_hidden_layers,
        "num_attention_heads": config.num_attention_heads,
        "hidden_act": "silu",
        "attention_dropout": 0.0,
        "rms_norm_eps": config.rms_norm_eps,
        "max_position_embeddings": config.max_position_embeddings,
        "tie_word_embeddings": config.tie_word_embeddings,
        "initializer_range": config.initializer_range,
        "bos_token_id": config.bos_token_id,
        "eos_token_id": list(config.eos_token_id)
        if isinstance(config.eos_token_id, tuple)
        else config.eos_token_id,
        "pad_token_id": config.pad_token_id,
        "use_cache": True,
        "rope_theta": config.rope.rope_theta,
        "rope_scaling": write_rope(config.rope),
    }
    if dtype is not None:
        data["torch_dtype"] = dtype
    if isinstance(config.attention, MLAConfig):
        data |= _write_mla(config, config.attention) | _write_moe(config)
    else:
        data |= _write_gqa(config, config.attention)
    return data


def _read_mtp(fields: Fields, model_type: str) -> int:
    if model_type == "deepseek_v3":
        return int(fields.size("num_nextn_predict_layers", 0, least=0, most=64))
    fields.must_be("num_nextn_predict_layers", 0)
    return 0


def _read_mla(fields: Fields, heads: int) -> MLAConfig:
    mla = MLAConfig(
        q_lora_rank=fields.size("q_lora_rank", None),
        kv_lora_rank=fields.size("kv_lora_rank"),
        qk_nope_head_dim=fields.size("qk_nope_head_dim"),
        qk_rope_head_dim=fields.size("qk_rope_head_dim"),
        v_head_dim=fields.size("v_head_dim"),
        attention_bias=fields.flag("attention_bias", False),
    )
    fields.must_be("num_key_value_heads", heads)
    fields.must_be("head_dim", mla.qk_rope_head_dim)  # transformers means the rotated part
    fields.must_be("qk_head_dim", mla.qk_head_dim)
    return mla


def _write_mla(config: ModelConfig, mla: MLAConfig) -> dict[str, Any]:
    data = {
        "num_key_value_heads": config.num_attention_heads,
        "q_lora_rank": mla.q_lora_rank,
        "kv_lora_rank": mla.kv_lora_rank,
        "qk_nope_head_dim": mla.qk_nope_head_dim,
        "qk_rope_head_dim": mla.qk_rope_head_dim,
        "v_head_dim": mla.v_head_dim,
        "attention_bias": mla.attention_bias,
    }
    if config.model_type == "deepseek_v3":
        return data | {
            "rope_interleave": config.rope.interleave,
            "num_nextn_predict_layers": config.num_nextn_predict_layers,
        }
    if config.num_nextn_predict_layers or not config.rope.interleave:
        raise ConfigError(
            "Hugging Face's deepseek_v2 has no MTP modules and interleaved rope; use deepseek_v3"
        )
    return data


def _read_gqa(fields: Fields, heads: int, hidden_size: int, model_type: str) -> GQAConfig:
    qwen = model_type == "qwen2"
    bias = qwen or fields.flag("attention_bias", False)
    return GQAConfig(
        num_key_value_heads=fields.size("num_key_value_heads", heads),
        head_dim=fields.size("head_dim", max(hidden_size // heads, 1)),
        qkv_bias=bias,  # always in Qwen2
        o_bias=bias and not qwen,
    )


def _write_gqa(config: ModelConfig, gqa: GQAConfig) -> dict[str, Any]:
    data: dict[str, Any] = {"num_key_value_heads": gqa.num_key_value_heads, "head_dim": gqa.head_dim}
    if config.model_type == "qwen2":
        if not gqa.qkv_bias or gqa.o_bias:
            raise ConfigError("Hugging Face's qwen2 has biases on q, k and v and none on o; use llama")
        return data | {"use_sliding_window": False}
    if gqa.qkv_bias != gqa.o_bias:
        raise ConfigError("Hugging Face's llama has biases on q, k, v and o, or on none; use qwen2")
    return data | {"attention_bias": gqa.qkv_bias, "mlp_bias": False}


def _read_moe(fields: Fields, model_type: str) -> MoEConfig | None:
    v3 = model_type == "deepseek_v3"
    n_group = fields.size("n_group", 1)
    values = {
        "n_shared_experts": fields.size("n_shared_experts", 0, least=0, most=2**16),
        "num_experts_per_tok": fields.size("num_experts_per_tok", None),
        "moe_intermediate_size": fields.size("moe_intermediate_size", None),
        "first_k_dense_replace": fields.size("first_k_dense_replace", 0, least=0),
        "moe_layer_freq": fields.size("moe_layer_freq", 1),
        # transformers leaves out what its class for this model_type always does
        "scoring_func": fields.choice("scoring_func", ("softmax", "sigmoid"), "sigmoid" if v3 else "softmax"),
        "topk_method": fields.choice(
            "topk_method", ("greedy", "group_limited_greedy", "noaux_tc"), "noaux_tc" if v3 else "greedy"
        ),
        "n_group": n_group,
        "topk_group": fields.size("topk_group", n_group),
        "norm_topk_prob": fields.flag("norm_topk_prob", v3),
        "routed_scaling_factor": fields.number("routed_scaling_factor", 1.0),
    }
    experts = fields.size("n_routed_experts", None, most=2**16)
    if experts is None:
        return None  # a dense model of this family
    for name in ("num_experts_per_tok", "moe_intermediate_size"):
        if values[name] is None:
            raise ConfigError(f"{fields.where} lacks {name}; a model with n_routed_experts needs it")
    return MoEConfig(n_routed_experts=experts, **values)


def _write_moe(config: ModelConfig) -> dict[str, Any]:
    moe = config.moe
    if moe is None:
        return {"n_routed_experts": None}
    names = (
        "n_routed_experts n_shared_experts num_experts_per_tok moe_intermediate_size first_k_dense_replace "
        "moe_layer_freq scoring_func topk_method n_group topk_group norm_topk_prob routed_scaling_factor"
    )
    return {name: getattr(moe, name) for name in names.split()}
