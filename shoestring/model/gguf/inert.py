"""Keys of GGUF metadata that leave a model's outputs as they are: at any value, or at one value."""

import re
from collections.abc import Collection
from typing import Any

import numpy as np

_ANY_VALUE_TEXT = """
    rope.scaling.finetuned rope.dimension_count_swa rope.freq_base_swa
    attention.key_length_swa attention.value_length_swa attention.sliding_window_pattern
    attention.layer_norm_epsilon attention.group_norm_epsilon
"""
# In this order: how the scaling was trained; layers with a window, which `attention.sliding_window` excludes;
# norms that these architectures do not have (their tensors would be refused).
_TOKENIZER_ANY_VALUE_TEXT = "scores token_type_count"
# Byte-level BPE has no use for scores; for SentencePiece they are read.

_ANY_VALUE = frozenset(_ANY_VALUE_TEXT.split())
_TOKENIZER_ANY_VALUE = re.compile("|".join(_TOKENIZER_ANY_VALUE_TEXT.split()) + r"|[a-z_]+_token_id")
"""Ids of roles that only templates write: fim_pre_token_id, mask_token_id, ..."""

_VALUES: dict[str, tuple[Any, ...]] = {
    "attention.causal": (True,),
    "rope.scaling.alpha": (0, 1),
    "rope.scaling.yarn_ext_factor": (1, -1),
    "rope.scaling.yarn_attn_factor": (1,),
    "logit_scale": (0, 1),
    "embedding_scale": (0, 1),
    "residual_scale": (0, 1),
    "attention.output_scale": (0, 1),
    "expert_group_scale": (0, 1),
    "moe_every_n_layers": (0, 1),
    "interleave_moe_layer_step": (0, 1),
    "full_attention_interval": (0, 1),
    "hidden_activation": ("silu", "swish", "swiglu"),
    "hidden_act": ("silu", "swish", "swiglu"),
    "tensor_data_layout": ("Meta AI original pth",),
}


def values_that_do(name: str) -> tuple[Any, ...]:
    """The values at which a key of the architecture that nothing reads changes no output."""
    return _VALUES.get(name, (0,))


def is_inert(name: str, value: Any) -> bool:
    """Return whether a key of the architecture (without its prefix) that nothing reads changes no output."""
    if name in _ANY_VALUE:
        return True
    return _is_one_of(value, values_that_do(name)) if name in _VALUES else _is_off(value)


def is_inert_for_tokenizer(name: str, value: Any) -> bool:
    """Return whether a key of `tokenizer.ggml` (without the prefix) that nothing reads changes no id."""
    is_off = not len(value) if isinstance(value, np.ndarray) else not value
    return _TOKENIZER_ANY_VALUE.fullmatch(name) is not None or is_off


def _is_off(value: Any) -> bool:
    """Return whether a value is false, 0, empty, or an array of such values."""
    if isinstance(value, np.ndarray):
        return not value.any()
    return not value


def _is_one_of(value: Any, values: Collection[Any]) -> bool:
    if isinstance(value, np.ndarray | list):
        return len(value) > 0 and all(_is_one_of(item, values) for item in list(value))
    number = float(np.float32(value)) if isinstance(value, int | float) else value
    return number in values or value in values
