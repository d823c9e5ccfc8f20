"""Quantization of weights in GGML's formats: Q8_0 and Q4_0 with llama.cpp's bits, other types only read.

A quantized row is cut into blocks of 32 (256 for the K-quants) that share a scale. The types that can be
written are in torch here, so that common files need no other library; the `gguf` library reads the rest.
"""

import numpy as np
import torch

from shoestring.errors import CheckpointError, MissingDependencyError
from shoestring.model.gguf.types import BF16, F16, F32, Q4_0, Q8_0, StorageType

CHUNK_ELEMENTS = 1 << 19
"""Elements converted at a time: these and their copies fit into the processor's cache."""


def quantize(rows: torch.Tensor, kind: StorageType, name: str) -> torch.Tensor:
    """Quantize float32 rows (N, columns), columns a multiple of the block, to bytes (N x row bytes,), uint8.

    Raises CheckpointError with the tensor's `name` for a value that is not finite or too large for a scale.
    """
    if kind == F32:
        return rows.contiguous().view(-1).view(torch.uint8)
    if kind == BF16:
        return rows.to(torch.bfloat16).view(-1).view(torch.uint8)
    blocks = rows.reshape(-1, kind.block)
    scale, bytes_ = _quantize_q8_0(blocks) if kind == Q8_0 else _quantize_q4_0(blocks)
    half = scale.to(torch.float16)
    if not half.isfinite().all():
        raise CheckpointError(f"{name} has infinite, NaN or too large values for {kind.name}")
    return torch.cat((half.view(torch.uint8), bytes_), dim=1).view(-1)


def dequantize(raw: np.ndarray, kind: StorageType) -> torch.Tensor:
    """Dequantize rows of bytes, uint8 (N, row bytes), to float32 (N, columns).

    Raises MissingDependencyError for a K-quant without the `gguf` library.
    """
    if kind == F32:
        return torch.from_numpy(raw.view(np.float32))
    if kind == F16:
        return torch.from_numpy(raw.view(np.float16)).float()
    if kind == BF16:
        return torch.from_numpy(raw.view(np.int16)).view(torch.bfloat16).float()
    if kind in (Q8_0, Q4_0):
        return _dequantize_simple(torch.from_numpy(raw), kind)
    return torch.from_numpy(_dequantize_by_library(raw, kind))


def _inverse(scale: torch.Tensor) -> torch.Tensor:
    return torch.where(scale == 0, 0.0, 1.0 / scale)


def _quantize_q8_0(blocks: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Scale (N, 1) and 32 signed bytes per block; the largest magnitude becomes 127."""
    scale = blocks.abs().amax(dim=1, keepdim=True) / 127
    quotients = blocks * _inverse(scale)
    whole = quotients.abs().floor_()
    # Halves are rounded away from zero, as by C's roundf; torch.round rounds them to even.
    whole += (2 * (quotients.abs() - whole)).floor_()
    return scale, whole.copysign_(quotients).to(torch.int8).view(torch.uint8)


def _quantize_q4_0(blocks: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Scale (N, 1) and 16 bytes per block: element i in the low half of byte i, i + 16 in the high half.

    The element of largest magnitude becomes -8; the scale has its sign.
    """
    largest = blocks.gather(1, blocks.abs().argmax(dim=1, keepdim=True))
    scale = largest / -8
    nibbles = (blocks * _inverse(scale) + 8.5).to(torch.uint8).clamp_(max=15)
    return scale, nibbles[:, :16] | (nibbles[:, 16:] << 4)


def _dequantize_simple(raw: torch.Tensor, kind: StorageType) -> torch.Tensor:
    blocks = raw.reshape(-1, kind.block_bytes)
    scale = blocks[:, :2].contiguous().view(torch.float16).float()
    packed = blocks[:, 2:]
    if kind == Q8_0:
        values = packed.contiguous().view(torch.int8).float()
    else:
        values = torch.cat((packed & 15, packed >> 4), dim=1).float() - 8
    return (values * scale).view(raw.shape[0], -1)


def _dequantize_by_library(raw: np.ndarray, kind: StorageType) -> np.ndarray:
    try:
        from gguf import GGMLQuantizationType, quants
    except ImportError:
        raise MissingDependencyError(
            f"reading {kind.name} weights needs the gguf library; install it with `pip install gguf`"
        ) from None
    return quants.dequantize(raw, GGMLQuantizationType(kind.code))
