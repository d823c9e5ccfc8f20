"""Launch the GPU programs, where Triton is installed to compile them; the plain values they take."""

import importlib.util
from typing import Any, NamedTuple

import torch
from torch import Tensor

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
"""Precisions of activations that the programs take."""
SMALLEST_DOT = 16
"""Rows, columns and depth of the smallest product that Triton runs on tensor cores."""


class Where(NamedTuple):
    """Places of each row's keys: page tables (B, width), the row's table, its number of keys; all int32."""

    tables: Tensor
    sequence: Tensor
    lengths: Tensor
    width: int


class AttentionTile(NamedTuple):
    """Sizes that an attention program is compiled for; `block_` sizes are powers of two, and masked."""

    heads: int
    key_heads: int
    width: int
    extra_width: int
    """Width of the rotary part (MLA) or of the values (GQA)."""
    page_size: int
    span: int
    """Keys that one program reads; the results of a row with more are joined afterwards."""
    block_heads: int
    block_width: int
    block_extra: int
    block_keys: int


class ProductTile(NamedTuple):
    """Sizes that a grouped product is compiled for; `bits` is 0 for weights that are not packed."""

    experts: int
    outputs: int
    depth: int
    bits: int
    block_experts: int
    block_rows: int
    block_outputs: int
    block_depth: int


def available() -> bool:
    """Return whether Triton is installed; it comes with PyTorch's GPU builds for Linux."""
    return importlib.util.find_spec("triton") is not None


def launch(program: str, grid: tuple[int, ...], out: Tensor, *arguments: Any, **options: int) -> None:
    """Run a program of triton_programs.py on the device of `out`; options are num_warps and num_stages."""
    from shoestring.kernels import triton_programs

    with torch.cuda.device_of(out):
        getattr(triton_programs, program)[grid](out, *arguments, **options)


def block(size: int) -> int:
    """The smallest power of two that is at least `size` and large enough for a product."""
    return max(SMALLEST_DOT, 1 << (size - 1).bit_length())
