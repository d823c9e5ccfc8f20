"""Llama 3's frequency factors, made from its four numbers and read back into them."""

from dataclasses import replace

import pytest
import torch

from shoestring.errors import CheckpointError
from shoestring.model.config import GQAConfig, RopeConfig
from shoestring.model.gguf.config_reader import read_config
from shoestring.model.gguf.config_writer import write_config
from shoestring.model.gguf.file import GGUFFile, GGUFTensor
from shoestring.model.gguf.names import ROPE_FACTORS
from shoestring.model.gguf.rope import rope_factors
from shoestring.model.gguf.types import F32
from shoestring.model.presets import PRESETS, TINY

LLAMA = replace(
    TINY,
    model_type="llama",
    moe=None,
    attention=GQAConfig(num_key_value_heads=1, head_dim=16),
    rope=RopeConfig(),
)


def test_llama3_factors_are_one_for_fast_pairs_and_the_factor_for_slow_ones():
    rope = PRESETS["r1-distill-llama-8b"].rope
    factors = rope_factors(rope, 128)
    assert (factors[0], factors[-1]) == (1.0, 8.0)
    assert (factors.diff() >= -1e-6).all()


def test_llama3_scaling_is_found_from_its_factors(tmp_path):
    rope = RopeConfig(rope_theta=5e5, rope_type="llama3", factor=32.0, original_max_position_embeddings=8192)
    config = replace(LLAMA, rope=rope, attention=GQAConfig(num_key_value_heads=1, head_dim=64))
    factors = rope_factors(rope, 64)
    path = tmp_path / "factors"
    shapes = {ROPE_FACTORS: (32,), "token_embd.weight": (TINY.vocab_size, TINY.hidden_size)}
    tensors = {
        name: GGUFTensor(path=path, name=name, shape=shape, type=F32, start=0)
        for name, shape in shapes.items()
    }
    file = GGUFFile(path=path, num_bytes=128, metadata=write_config(config), tensors=tensors)
    path.write_bytes(factors.numpy().tobytes())
    assert read_config(file).rope == rope
    for wrong in (factors + 1, factors.flip(0), torch.full((32,), float("nan")), torch.zeros(32)):
        path.write_bytes(wrong.numpy().tobytes())
        with pytest.raises(CheckpointError, match="is not Llama 3's rope scaling"):
            read_config(file)
    with pytest.raises(CheckpointError, match="is supported for llama only"):
        read_config(replace(file, metadata=write_config(TINY)))
