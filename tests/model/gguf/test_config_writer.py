"""A model's shape as llama.cpp's metadata and back, and the shapes that llama.cpp would compute otherwise."""

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from shoestring.errors import ConfigError
from shoestring.model.config import GQAConfig, RopeConfig
from shoestring.model.gguf.config_reader import read_config
from shoestring.model.gguf.config_writer import write_config
from shoestring.model.gguf.file import GGUFFile, GGUFTensor
from shoestring.model.gguf.names import layout
from shoestring.model.gguf.types import F32
from shoestring.model.presets import PRESETS, TINY

LLAMA = replace(
    TINY,
    model_type="llama",
    num_nextn_predict_layers=0,
    moe=None,
    attention=GQAConfig(num_key_value_heads=1, head_dim=16),
    rope=RopeConfig(),
)
QWEN = replace(LLAMA, model_type="qwen2", attention=replace(LLAMA.attention, qkv_bias=True))


def as_file(config, metadata) -> GGUFFile:
    """A header as it would be read: float32 numbers, and where each tensor lies."""
    stored = {k: float(np.float32(v)) if isinstance(v, float) else v for k, v in metadata.items()}
    tensors = {
        item.name: GGUFTensor(path=Path("m.gguf"), name=item.name, shape=item.shape, type=F32, start=0)
        for item in layout(config)
    }
    return GGUFFile(path=Path("m.gguf"), num_bytes=0, metadata=stored, tensors=tensors)


@pytest.mark.parametrize("name", [name for name in PRESETS if "llama" not in name])
def test_every_preset_comes_back_equal(name):
    config = replace(PRESETS[name], num_nextn_predict_layers=0, initializer_range=0.02)  # not in GGUF
    metadata = write_config(config) | {
        "tokenizer.ggml.bos_token_id": config.bos_token_id,
        "tokenizer.ggml.eos_token_id": config.eos_token_id,
    }
    assert read_config(as_file(config, metadata)) == config  # llama3's factors: tests of the import


@pytest.mark.parametrize(
    "config",
    [
        LLAMA,
        QWEN,
        replace(QWEN, tie_word_embeddings=True),
        replace(LLAMA, rope=RopeConfig(rope_type="linear", factor=2.5)),
        replace(LLAMA, rope=RopeConfig(rope_type="yarn", factor=4.0, original_max_position_embeddings=64)),
        replace(LLAMA, attention=replace(LLAMA.attention, qkv_bias=True, o_bias=True)),
        replace(TINY, num_nextn_predict_layers=0, moe=None),
        replace(TINY, num_nextn_predict_layers=0, attention=replace(TINY.attention, q_lora_rank=None)),
    ],
)
def test_other_shapes_come_back_equal(config):
    assert read_config(as_file(config, write_config(config))) == config


def test_deepseek_keys_are_those_of_llama_cpp():
    keys = write_config(PRESETS["deepseek-v3"])
    expected = {
        "general.architecture": "deepseek2",
        "deepseek2.attention.head_count_kv": 1,
        "deepseek2.attention.key_length": 576,
        "deepseek2.attention.value_length": 512,
        "deepseek2.attention.key_length_mla": 192,
        "deepseek2.attention.value_length_mla": 128,
        "deepseek2.rope.dimension_count": 64,
        "deepseek2.leading_dense_block_count": 3,
        "deepseek2.expert_gating_func": 2,
        "deepseek2.expert_weights_norm": True,
        "deepseek2.expert_weights_scale": 2.5,
        "deepseek2.expert_group_count": 8,
        "deepseek2.expert_group_used_count": 4,
        "deepseek2.rope.scaling.type": "yarn",
        "deepseek2.rope.scaling.yarn_log_multiplier": 0.1,
    }
    assert {key: keys[key] for key in expected} == expected


MOE, MLA = TINY.moe, TINY.attention
REFUSED = {
    "biases": (replace(TINY, attention=replace(MLA, attention_bias=True)), "attention_bias = True"),
    "27 layers": (replace(TINY, num_hidden_layers=27), "q_lora_rank = 16"),
    "no shared experts": (replace(TINY, moe=replace(MOE, n_shared_experts=0)), "n_shared_experts = 0"),
    "every other layer": (replace(TINY, moe=replace(MOE, moe_layer_freq=2)), "moe_layer_freq = 2"),
    "linear rope": (
        replace(TINY, rope=RopeConfig(rope_type="linear", interleave=True)),
        "rope_type = linear",
    ),
    "two mscales": (
        replace(TINY, rope=RopeConfig(rope_type="yarn", interleave=True, mscale=1.0, mscale_all_dim=0.5)),
        "mscale = 1.0",
    ),
    "no mscale": (replace(TINY, rope=RopeConfig(rope_type="yarn", interleave=True)), "mscale = None"),
    "gqa with mscale": (
        replace(LLAMA, rope=RopeConfig(rope_type="yarn", mscale=1.0, mscale_all_dim=1.0)),
        "mscale = 1.0",
    ),
    "gqa of neighbors": (replace(LLAMA, rope=RopeConfig(interleave=True)), "rope.interleave = True"),
    "qwen2 as llama3": (replace(QWEN, rope=RopeConfig(rope_type="llama3")), "rope_type = llama3"),
    "qwen2 of wide heads": (replace(QWEN, attention=replace(QWEN.attention, head_dim=32)), "head_dim = 32"),
    "qwen2 with o bias": (replace(QWEN, attention=replace(QWEN.attention, o_bias=True)), "o_bias = True"),
    "experts in llama": (replace(LLAMA, moe=MOE), "n_routed_experts = 8"),
    "gqa in deepseek": (replace(LLAMA, model_type="deepseek_v3"), "model_type = deepseek_v3"),
    "mla in llama": (replace(TINY, model_type="llama"), "model_type = llama"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_llama_cpp_computes_otherwise_is_refused(case):
    config, words = REFUSED[case]
    with pytest.raises(ConfigError, match=f"^{words} cannot be exported to GGUF"):
        write_config(config)


def test_what_llama_cpp_only_approximates_is_told(caplog):
    with caplog.at_level(logging.WARNING):
        write_config(PRESETS["deepseek-v2"])
        write_config(replace(TINY, rms_norm_eps=1e-5))
    assert "ranks groups" in caplog.text
    assert "rms_norm_eps 1e-05" in caplog.text
