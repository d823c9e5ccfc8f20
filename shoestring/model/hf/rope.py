"""Rotary embedding in config.json: `rope_theta` and `rope_scaling`, or the newer `rope_parameters`."""

import math
from dataclasses import replace
from typing import Any

from shoestring.errors import ConfigError
from shoestring.model.config import RopeConfig
from shoestring.model.hf.fields import Fields
from shoestring.model.yarn import cos_sin_factor

ROPE_TYPES = ("default", "linear", "llama3", "yarn")

_FIELDS_OF_TYPE = {
    "linear": ["factor"],
    "llama3": ["factor", "original_max_position_embeddings", "low_freq_factor", "high_freq_factor"],
    "yarn": [
        *["factor", "original_max_position_embeddings", "beta_fast", "beta_slow"],
        *["mscale", "mscale_all_dim"],
    ],
}


def read_rope(fields: Fields, max_position_embeddings: int, model_type: str) -> RopeConfig:
    """The RopeConfig of a config.json. Raises ConfigError for a type or factor this code does not compute."""
    theta = fields.number("rope_theta", 10000.0)
    interleave = fields.flag("rope_interleave", True) if model_type == "deepseek_v3" else False
    if model_type == "deepseek_v2":
        fields.must_be("rope_interleave", True)
        interleave = True
    old, new = fields.table("rope_scaling"), fields.table("rope_parameters")
    if old and new and old != new:
        raise ConfigError(f"{fields.where}: rope_scaling and rope_parameters disagree; keep one of them")
    scaling = Fields(old or new, f"{fields.where}: {'rope_scaling' if old else 'rope_parameters'}")
    rope_type = scaling.choice("rope_type", ROPE_TYPES, scaling.choice("type", ROPE_TYPES, "default"))
    scaling.must_be("truncate", True)
    scaling.must_be("partial_rotary_factor", 1)
    scaling.must_be("extrapolation_factor", 1)
    scaling.must_be("finetuned", True, False)  # a note of YaRN's authors
    original = max_position_embeddings if rope_type in ("llama3", "yarn") else None
    rope = RopeConfig(
        rope_theta=scaling.number("rope_theta", theta),
        rope_type=rope_type,
        interleave=interleave,
        factor=scaling.number("factor", 1.0),
        original_max_position_embeddings=scaling.size("original_max_position_embeddings", original),
        beta_fast=scaling.number("beta_fast", 32.0),
        beta_slow=scaling.number("beta_slow", 1.0),
        mscale=scaling.number("mscale", None),
        mscale_all_dim=scaling.number("mscale_all_dim", None),
        low_freq_factor=scaling.number("low_freq_factor", 1.0),
        high_freq_factor=scaling.number("high_freq_factor", 4.0),
    )
    rope = replace(rope, attention_factor=_read_attention_factor(scaling, rope))
    scaling.finish()
    return rope


def _read_attention_factor(scaling: Fields, rope: RopeConfig) -> float | None:
    """YaRN's factor on cos and sin, if the file gives one instead of leaving it to `factor` and the mscales.

    `attention_factor` is that factor (transformers); `attn_factor` multiplies the usual one (vLLM), as in
    DeepSeek-R1-0528-Qwen3-8B, whose product is 1.
    """
    if rope.rope_type != "yarn":
        scaling.must_be("attention_factor", 1)
        scaling.must_be("attn_factor", 1)
        return None
    total, relative = scaling.number("attention_factor", None), scaling.number("attn_factor", None)
    if relative is None:
        return total
    product = relative * cos_sin_factor(rope)
    if total is not None and not math.isclose(total, product, rel_tol=1e-6):
        raise ConfigError(
            f"{scaling.where}: attention_factor = {total} and attn_factor = {relative} disagree; keep one"
        )
    return product if total is None else total


def write_rope(rope: RopeConfig) -> dict[str, Any] | None:
    """The `rope_scaling` of config.json; None for plain rotary embedding."""
    if rope.rope_type == "default":
        return None
    # DeepSeek's first modeling code reads `type`, everything newer `rope_type`.
    data: dict[str, Any] = {"type": rope.rope_type, "rope_type": rope.rope_type}
    values = {name: getattr(rope, name) for name in _FIELDS_OF_TYPE[rope.rope_type]}
    if rope.rope_type == "yarn" and rope.attention_factor is not None:  # one key for each program
        usual = cos_sin_factor(replace(rope, attention_factor=None))
        values |= {"attention_factor": rope.attention_factor, "attn_factor": rope.attention_factor / usual}
    return data | {name: value for name, value in values.items() if value is not None}
