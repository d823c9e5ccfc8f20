"""Hugging Face's config.json to ModelConfig and back, for the families of DeepSeek, Qwen and Llama."""

import json
from pathlib import Path
from typing import Any, get_args

from shoestring.durable import write_atomic
from shoestring.errors import ConfigError
from shoestring.model.check import check
from shoestring.model.config import GQAConfig, MLAConfig, ModelConfig, ModelType
from shoestring.model.hf.fields import Fields
from shoestring.model.hf.inert import SINGLE_VALUED
from shoestring.model.hf.moe import read_moe, write_moe
from shoestring.model.hf.rope import read_rope, write_rope

CONFIG_NAME = "config.json"
MAX_CONFIG_BYTES = 10_000_000

ARCHITECTURES = {
    "deepseek_v3": "DeepseekV3ForCausalLM",
    "deepseek_v2": "DeepseekV2ForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "qwen3_moe": "Qwen3MoeForCausalLM",
    "llama": "LlamaForCausalLM",
}

QWEN3 = ("qwen3", "qwen3_moe")


def save_config(
    config: ModelConfig, folder: Path, *, dtype: str | None = None, is_reward_model: bool = False
) -> None:
    """Write `folder`/config.json. ConfigError for a shape Hugging Face has no name for, StorageError.

    A reward model is Hugging Face's ...ForSequenceClassification with one label.
    """
    data = to_hf(config, dtype=dtype)
    if is_reward_model:
        (name,) = data["architectures"]
        data["architectures"] = [name.replace("ForCausalLM", "ForSequenceClassification")]
        data |= {"id2label": {"0": "reward"}, "label2id": {"reward": 0}}
    text = json.dumps(data, indent=2, sort_keys=True) + "\n"
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
    for name, values in SINGLE_VALUED.items():
        fields.must_be(name, *values)
    heads = fields.size("num_attention_heads", most=2**16)
    hidden_size = fields.size("hidden_size")
    max_positions = fields.size("max_position_embeddings")
    layers = fields.size("num_hidden_layers", most=4096)
    _check_window(fields, data, layers, max_positions)
    deepseek = model_type.startswith("deepseek")
    config = ModelConfig(
        model_type=model_type,
        vocab_size=fields.size("vocab_size"),
        hidden_size=hidden_size,
        intermediate_size=fields.size("intermediate_size"),
        num_hidden_layers=layers,
        num_attention_heads=heads,
        attention=_read_mla(fields, heads) if deepseek else _read_gqa(fields, heads, hidden_size, model_type),
        moe=read_moe(fields, model_type, layers),
        rope=read_rope(fields, max_positions, model_type),
        rms_norm_eps=fields.number("rms_norm_eps", 1e-6),
        max_position_embeddings=max_positions,
        tie_word_embeddings=fields.flag("tie_word_embeddings", False),
        num_nextn_predict_layers=_read_mtp(fields, model_type),
        initializer_range=fields.number("initializer_range", 0.02),
        bos_token_id=fields.token_id("bos_token_id"),
        eos_token_id=fields.token_ids("eos_token_id"),
        pad_token_id=fields.token_id("pad_token_id"),
    )
    fields.finish()
    try:
        check(config)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None
    return config


def to_hf(config: ModelConfig, *, dtype: str | None = None) -> dict[str, Any]:
    """The config.json of `config`, with the fields that every engine reads (`rope_theta`, `rope_scaling`).

    `dtype` is the weights', such as "bfloat16". Raises ConfigError when no published architecture fits.
    """
    _check_family(config)
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
        return data | _write_mla(config, config.attention) | write_moe(config)
    return data | _write_gqa(config, config.attention) | write_moe(config)


def _check_family(config: ModelConfig) -> None:
    """ConfigError for an attention, or experts, that models of this type do not have."""
    model_type, is_mla = config.model_type, isinstance(config.attention, MLAConfig)
    if model_type.startswith("deepseek"):
        parts, fits = "latent attention", is_mla
    elif model_type == "qwen3_moe":
        parts, fits = "grouped-query attention", not is_mla
    else:
        parts, fits = "grouped-query attention and no experts", not is_mla and config.moe is None
    if not fits:
        raise ConfigError(f"Hugging Face's {model_type} cannot express this model: it has {parts}")


def _check_window(fields: Fields, data: dict[str, Any], layers: int, max_positions: int) -> None:
    """ConfigError if some layer would attend to a window that is shorter than the context.

    `layer_types` says so, or else Qwen's windows begin at layer `max_window_layers`.
    """
    fields.full_attention_everywhere()
    first, window = data.get("max_window_layers"), data.get("sliding_window", 1)
    is_by_layer = data["model_type"] in ("qwen2", "qwen3")
    starts_late = is_by_layer and (bool(data.get("layer_types")) or (type(first) is int and first >= layers))
    is_long = window is None or (type(window) is int and window >= max_positions)
    fields.must_be("use_sliding_window", *((False, True) if starts_late or is_long else (False,)))


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
    is_qwen2, is_qwen3 = model_type == "qwen2", model_type in QWEN3
    attention_bias = fields.flag("attention_bias", False)  # Qwen2 has its biases whatever this says
    bias = is_qwen2 or attention_bias
    fields.must_be("qkv_bias", bias)
    fields.must_be("use_qk_norm", is_qwen3)
    # transformers has 128 for qwen3 alone where the file says nothing
    width = 128 if model_type == "qwen3" else max(hidden_size // heads, 1)
    return GQAConfig(
        num_key_value_heads=fields.size("num_key_value_heads", heads),
        head_dim=fields.size("head_dim", width),
        qkv_bias=bias,
        o_bias=bias and not is_qwen2,
        qk_norm=is_qwen3,
    )


def _write_gqa(config: ModelConfig, gqa: GQAConfig) -> dict[str, Any]:
    if config.rope.interleave:
        raise ConfigError(f"Hugging Face's {config.model_type} rotates halves, and this model neighbors")
    data: dict[str, Any] = {"num_key_value_heads": gqa.num_key_value_heads, "head_dim": gqa.head_dim}
    is_qwen3 = config.model_type in QWEN3
    if gqa.qk_norm != is_qwen3:
        norms = "norms" if is_qwen3 else "no norms"
        other = "llama" if is_qwen3 else "qwen3"
        raise ConfigError(f"Hugging Face's {config.model_type} has {norms} of queries and keys; use {other}")
    if config.model_type == "qwen2":
        if not gqa.qkv_bias or gqa.o_bias:
            raise ConfigError("Hugging Face's qwen2 has biases on q, k and v and none on o; use llama")
        return data | {"use_sliding_window": False}
    if gqa.qkv_bias != gqa.o_bias:
        raise ConfigError(
            f"Hugging Face's {config.model_type} has biases on q, k, v and o, or on none; use qwen2"
        )
    data["attention_bias"] = gqa.qkv_bias
    return data | ({"use_sliding_window": False} if is_qwen3 else {"mlp_bias": False})
