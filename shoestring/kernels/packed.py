"""Packed weights: float32, int8 or 4-bit, integers in groups of 32 with a float16 scale; pack and unpack."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from shoestring.errors import CheckpointError
from shoestring.kernels import cpu_build
from shoestring.kernels.cpu_call import call

GROUP = 32
"""Inputs of a matrix that share a scale."""
OUTPUTS = 16
"""Outputs of a matrix that lie together, as a panel."""
SCALE_BYTES = 2 * OUTPUTS
STEPS = torch.arange(-9, 10) / 10
"""Values tried for a 4-bit scale: each is added to 8, the divisor of the largest weight."""

Bits = Literal[4, 8, 32]


@dataclass(frozen=True)
class Packed:
    """One matrix (F, D), or a stack of them (E, F, D), as integers; with 32 bits, as floats in another order.

    `blocks` is uint8 (E, panels, D / 32, block bytes): 16 outputs x 32 inputs and, of integers, 16 float16
    scales. kernels/cpu/packed.h describes the order inside a block.
    """

    bits: Bits
    outputs: int
    blocks: Tensor

    @property
    def depth(self) -> int:
        return self.blocks.shape[-2] * GROUP


def block_bytes(bits: Bits) -> int:
    """Bytes of one block: 288 (4.5 bits a weight), 544 (8.5) or 2048."""
    return OUTPUTS * GROUP * bits // 8 + (SCALE_BYTES if bits < 32 else 0)


def packed_shape(shape: tuple[int, ...], bits: Bits) -> tuple[int, int, int, int]:
    """Shape of `Packed.blocks` for a weight (F, D) or (E, F, D)."""
    *stack, outputs, depth = shape
    assert depth % GROUP == 0
    return (stack[0] if stack else 1, -(-outputs // OUTPUTS), depth // GROUP, block_bytes(bits))


def pack(weight_EFD: Tensor, bits: Bits) -> Packed:
    """Pack a weight (F, D) or (E, F, D), D a multiple of 32.

    An int8 scale maps a group's largest value to 127; a 4-bit scale is the best of 19 by squared error.
    Raises CheckpointError for values that are not finite or too large for a float16 scale.
    """
    blocks = torch.empty(packed_shape(tuple(weight_EFD.shape), bits), dtype=torch.uint8)
    stack = weight_EFD.detach().cpu().reshape(blocks.shape[0], *weight_EFD.shape[-2:])
    for matrix, target in zip(stack, blocks, strict=True):
        pack_into(matrix, bits, target)
    return Packed(bits, weight_EFD.shape[-2], blocks.to(weight_EFD.device))


def pack_into(weight_FD: Tensor, bits: Bits, blocks: Tensor) -> None:
    """Pack one matrix into its `blocks` (panels, D / 32, block bytes), on the CPU."""
    weight = weight_FD.float().contiguous()
    if available():
        finite = bool(call("pack_weights", bits, *weight.shape, weight, blocks) & 1)
    elif bits == 32:
        finite = True
        blocks.copy_(
            _panels(weight.unflatten(-1, (-1, GROUP))).transpose(-2, -1).flatten(2).view(torch.uint8)
        )
    else:
        finite = bool(weight.isfinite().all()) and float(weight.abs().max()) < 4e5
        if finite:
            blocks.copy_(_arrange(*quantized(weight, bits), bits))
    if not finite:
        raise CheckpointError("a weight is infinite, NaN or beyond 400,000, which cannot be quantized")


def available() -> bool:
    """Whether this CPU has the compiled kernels for packed weights."""
    return cpu_build.library() is not None and hasattr(cpu_build.library(), "pack_weights")


def quantized(weight_FD: Tensor, bits: Bits) -> tuple[Tensor, Tensor]:
    """Integers (F, G, X) as float32, and scales (F, G): the specification of the quantization."""
    w = weight_FD.unflatten(-1, (-1, GROUP))
    largest = w.gather(-1, w.abs().argmax(-1, keepdim=True))
    if bits == 8:
        scale = (largest.abs() / 127).half().float()
        return (w / scale).nan_to_num(0).round().clamp(-127, 127), scale[..., 0]
    best = torch.full_like(largest[..., 0], -1)
    integers, scales = torch.zeros_like(w), torch.zeros_like(best)
    for step in STEPS.tolist():
        q = (w * (-(8 + step) / largest)).nan_to_num(0).round().clamp(-8, 7)
        qx, qq = (q * w).sum(-1), q.square().sum(-1)
        energy = (qx.square() / qq).nan_to_num(0)  # the larger, the smaller the squared error
        better = energy > best
        best = torch.where(better, energy, best)
        scales = torch.where(better, (qx / qq).nan_to_num(0), scales)
        integers = torch.where(better[..., None], q, integers)
    return integers, scales


def unpack(packed: Packed) -> Tensor:
    """The float32 weights (E, F, D) that the blocks stand for."""
    if packed.bits == 32:
        w = packed.blocks.view(torch.float32).unflatten(-1, (GROUP, OUTPUTS))  # (E, panels, G, 32, 16)
        return w.permute(0, 1, 4, 2, 3).flatten(3).flatten(1, 2)[:, : packed.outputs]
    body, scales = packed.blocks.split([packed.blocks.shape[-1] - SCALE_BYTES, SCALE_BYTES], dim=-1)
    scales = scales.contiguous().view(torch.float16).float()  # (E, panels, G, 16)
    if packed.bits == 8:  # chunk, output, input
        q = body.contiguous().view(torch.int8).unflatten(-1, (16, OUTPUTS, 2)).transpose(-3, -2)
    else:  # half panel, chunk, output, low or high half byte, input
        parts = torch.stack([half.unflatten(-1, (2, 4, 8, 4)) for half in (body & 15, body >> 4)], dim=-2)
        q = parts.transpose(-4, -3).to(torch.int8) - 8
    w = q.reshape(*scales.shape, GROUP) * scales[..., None]  # (E, panels, G, 16, 32)
    return w.transpose(2, 3).flatten(3).flatten(1, 2)[:, : packed.outputs]


def _arrange(integers_FGX: Tensor, scales_FG: Tensor, bits: Bits) -> Tensor:
    """Blocks (panels, G, bytes) of one matrix."""
    q = _panels(integers_FGX).to(torch.int8)
    scales = torch.nn.functional.pad(scales_FG, (0, 0, 0, -len(scales_FG) % OUTPUTS)).half()
    if bits == 8:
        body = q.unflatten(-1, (16, 2)).transpose(-3, -2).flatten(2).contiguous().view(torch.uint8)
    else:  # half panel, chunk, output, low or high half byte, input
        chunks = (q + 8).to(torch.uint8).unflatten(2, (2, 8)).unflatten(-1, (4, 2, 4)).transpose(-4, -3)
        body = (chunks[..., 0, :] | chunks[..., 1, :] << 4).flatten(2)
    packed_scales = scales.unflatten(0, (-1, OUTPUTS)).transpose(1, 2).contiguous().view(torch.uint8)
    return torch.cat((body, packed_scales), dim=-1)


def _panels(values_FGX: Tensor) -> Tensor:
    """(panels, G, 16 outputs, X), the last panel filled up with zeros."""
    whole_FGX = torch.nn.functional.pad(values_FGX, (0, 0, 0, 0, 0, -len(values_FGX) % OUTPUTS))
    return whole_FGX.unflatten(0, (-1, OUTPUTS)).transpose(1, 2)
