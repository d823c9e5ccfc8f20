"""FP8 weights as DeepSeek-V3 stores them: e4m3 values with one float32 scale per 128 x 128 block."""

import torch

from shoestring.model.hf.quantization import BlockSize

SCALE_SUFFIX = "_scale_inv"
"""`weight` lies beside `weight_scale_inv`; despite the name it multiplies (DeepSeek-V3, README_WEIGHTS)."""


def scale_shape(shape: tuple[int, ...], block: BlockSize) -> tuple[int, int]:
    """The shape of the scales of a weight; blocks at the edges are cut short."""
    return -(-shape[0] // block[0]), -(-shape[1] // block[1])


def dequantize(rows: torch.Tensor, scale: torch.Tensor, block_columns: int) -> torch.Tensor:
    """One row of blocks: rows (<= block rows, columns) in float8_e4m3fn times scale (blocks,), in float32."""
    return rows.to(torch.float32) * scale.repeat_interleave(block_columns)[: rows.shape[1]]
