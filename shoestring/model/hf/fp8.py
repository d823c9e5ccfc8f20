"""FP8 weights as DeepSeek-V3 stores them: e4m3 values with one float32 scale per 128 x 128 block."""

from pathlib import Path
from typing import Any

import torch

from shoestring.errors import CheckpointError
from shoestring.model.hf.shards import read_json

SCALE_SUFFIX = "_scale_inv"
"""`weight` lies beside `weight_scale_inv`; despite the name it multiplies (DeepSeek-V3, README_WEIGHTS)."""


def block_size(folder: Path) -> tuple[int, int] | None:
    """Rows and columns of a block, from `quantization_config` in config.json; None when it is not quantized.

    Raises CheckpointError for any other quantization, naming it.
    """
    path = folder / "config.json"
    settings: Any = read_json(path).get("quantization_config") if path.exists() else None
    if settings is None:
        return None
    method = settings.get("quant_method") if isinstance(settings, dict) else settings
    if method != "fp8":
        raise CheckpointError(
            f"{path} says quant_method {method!r}; only 'fp8' with weight_block_size is read, "
            "so load the weights it was made from"
        )
    if settings.get("fmt", "e4m3") != "e4m3":
        raise CheckpointError(f"{path} says fmt {settings['fmt']!r}; only 'e4m3' is read")
    size = settings.get("weight_block_size")
    if not (
        isinstance(size, list) and len(size) == 2 and all(type(n) is int and 0 < n < 2**20 for n in size)
    ):
        raise CheckpointError(
            f"{path} says weight_block_size {size!r}; fp8 weights need two sizes such as [128, 128]"
        )
    return size[0], size[1]


def scale_shape(shape: tuple[int, ...], block: tuple[int, int]) -> tuple[int, int]:
    """The shape of the scales of a weight; blocks at the edges are cut short."""
    return -(-shape[0] // block[0]), -(-shape[1] // block[1])


def dequantize(rows: torch.Tensor, scale: torch.Tensor, block_columns: int) -> torch.Tensor:
    """One row of blocks: rows (<= block rows, columns) in float8_e4m3fn times scale (blocks,), in float32."""
    return rows.to(torch.float32) * scale.repeat_interleave(block_columns)[: rows.shape[1]]
