"""Rope scaling of Llama 3 in GGUF: one factor per frequency instead of four numbers."""

import math
from dataclasses import replace

import torch

from shoestring.errors import CheckpointError
from shoestring.model.config import RopeConfig
from shoestring.model.gguf.file import GGUFFile, read_rows
from shoestring.model.gguf.names import ROPE_FACTORS
from shoestring.model.gguf.quants import dequantize
from shoestring.model.gguf.types import F32
from shoestring.model.layers import inverse_frequencies

MAX_PAIRS = 1 << 15


def rope_factors(rope: RopeConfig, width: int) -> torch.Tensor:
    """Divisors of the frequencies of `width` dimensions for Llama 3's scaling, float32 (R/2,)."""
    return inverse_frequencies(replace(rope, rope_type="default"), width) / inverse_frequencies(rope, width)


def read_rope_scaling(file: GGUFFile, plain: RopeConfig, original_length: int) -> RopeConfig:
    """Rope configuration for the factors of a file; `plain` and `original_length` are those before scaling.

    Raises CheckpointError for factors that are not Llama 3's, with low and high frequency factors 1 and 4.
    """
    tensor = file.tensors[ROPE_FACTORS]
    if len(tensor.shape) != 1 or tensor.type != F32 or tensor.shape[0] > MAX_PAIRS:
        raise CheckpointError(f"{tensor} is not a list of at most {MAX_PAIRS} factors in F32")
    with file.path.open("rb", buffering=0) as raw:
        factors = dequantize(read_rows(raw, tensor, 0, 1), F32)[0]
    factor = float(f"{factors.max().item():.6g}")
    fits = math.isfinite(factor) and factor >= 1 and plain.rope_theta > 1
    rope = replace(plain, rope_type="llama3", factor=factor, original_max_position_embeddings=original_length)
    if not fits or not torch.allclose(rope_factors(rope, 2 * len(factors)), factors, rtol=1e-3):
        raise CheckpointError(f"{tensor} is not Llama 3's rope scaling, the only one supported as factors")
    return rope
