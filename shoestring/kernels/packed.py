"""Packed weights: float32, int8 or 4-bit, integers in groups of 32 with their scale; pack and unpack."""

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
UNPACKED_AT_ONCE = {"cpu": 1 << 17, "cuda": 1 << 24}
"""Weights that `unpack` makes at a time, which needs several times their memory: a CPU's cache has room."""
LEAST_SCALE = 106 << 23
"""Bits of the least 4-bit scale, 2^-21, as a float32."""
LARGEST_CODE = 0x3FF
"""Of the 10 bits of a 4-bit scale beside the 6 bits of its zero."""
LARGEST_WEIGHT = {8: 4e5, 4: 15_000.0}
"""Limits beyond which a scale may be infinite or have no word."""

Bits = Literal[4, 8, 32]


@dataclass(frozen=True)
class Packed:
    """One matrix (F, D), or a stack of them (E, F, D), as integers; with 32 bits, as floats in another order.

    `blocks` is uint8 (E, panels, D / 32, block bytes): 16 outputs x 32 inputs and, of integers, a word of 16
    bits for each output: its scale, of 4 bits its zero too. kernels/cpu/packed.h describes the order.
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

    An int8 scale maps a group's largest value to 127; a 4-bit scale and zero are the best of 35 by squared
    error. Raises CheckpointError for values that are not finite or too large for a scale.
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
        finite = bool(weight.isfinite().all()) and float(weight.abs().max()) < LARGEST_WEIGHT[bits]
        if finite:
            blocks.copy_(_arrange(*quantized(weight, bits), bits))
    if not finite:
        raise CheckpointError(
            f"a weight is infinite, NaN or beyond {LARGEST_WEIGHT[bits]:,.0f}, which cannot be quantized"
        )


def available() -> bool:
    """Return whether this CPU has the compiled kernels for packed weights."""
    return cpu_build.library() is not None and hasattr(cpu_build.library(), "pack_weights")


def quantized(weight_FD: Tensor, bits: Bits) -> tuple[Tensor, Tensor]:
    """Integers (F, G, X) as float32, and words (F, G) as int32: the specification of the quantization."""
    w = weight_FD.unflatten(-1, (-1, GROUP))
    if bits == 4:
        return _quantized4(w)
    scale = (w.abs().amax(-1) / 127).half()
    integers = (w / scale.float()[..., None]).nan_to_num(0).round().clamp(-127, 127)
    return integers, scale.view(torch.int16).int()


def _quantized4(w_FGX: Tensor) -> tuple[Tensor, Tensor]:
    """The scale that reaches from the least to the largest value, 5 smaller and 1 larger ones are tried.

    Each is tried with 5 zeros, a quarter of a step apart, about the one that cuts off both ends alike.
    """
    low, high = w_FGX.amin(-1).clamp(max=0), w_FGX.amax(-1).clamp(min=0)
    reach = (((high - low) / 15).view(torch.int32) - LEAST_SCALE).clamp(min=0) >> 18
    best, words = torch.full_like(low, torch.inf), torch.zeros_like(reach)
    for code in (reach + step for step in range(-5, 2)):
        scale, _ = scales_and_zeros(code.clamp(0, LARGEST_CODE) << 6 | 32)
        center = (2 * (15 - (high + low) * (1 / scale))).nan_to_num(0).round().clamp(0, 60).int()
        for zero in (center + step for step in range(-2, 3)):
            word = code << 6 | zero.clamp(min=0)
            error = (weights(_rounded4(w_FGX, word), word, 4) - w_FGX).square().sum(-1)
            is_better = (error < best) & (code >= 0) & (code <= LARGEST_CODE) & (zero >= 0)
            best = torch.where(is_better, error, best)
            words = torch.where(is_better, word, words)
    words = torch.where(w_FGX.any(-1), words, 0)
    return _rounded4(w_FGX, words), words


def _rounded4(w_FGX: Tensor, words_FG: Tensor) -> Tensor:
    scale, zero = scales_and_zeros(words_FG)
    return (w_FGX * (1 / scale)[..., None] + zero[..., None]).nan_to_num(0).round().clamp(0, 15)


def scales_and_zeros(words: Tensor) -> tuple[Tensor, Tensor]:
    """The scale and zero of 4-bit groups from their words, any int32 shape, of which 16 bits count."""
    scale = (((words & 0xFFFF) << 12) + LEAST_SCALE).view(torch.float32)
    return scale, (words & 63).float() / 4


def weights(integers_GX: Tensor, words_G: Tensor, bits: Bits) -> Tensor:
    """The float32 weights (..., G, X) that integers and words (..., G) stand for."""
    if bits == 8:
        return integers_GX * words_G.to(torch.int16).view(torch.float16).float()[..., None]
    scale, zero = scales_and_zeros(words_G)
    return (integers_GX - zero[..., None]) * scale[..., None]


def unpack(packed: Packed) -> Tensor:
    """The float32 weights (E, F, D) that the blocks stand for; some panels at a time, which saves memory."""
    if packed.bits == 32:
        w = packed.blocks.view(torch.float32).unflatten(-1, (GROUP, OUTPUTS))  # (E, panels, G, 32, 16)
        return w.permute(0, 1, 4, 2, 3).flatten(3).flatten(1, 2)[:, : packed.outputs]
    stack, panels = packed.blocks.shape[:2]
    w = torch.empty(stack, panels * OUTPUTS, packed.depth, device=packed.blocks.device)
    step = max(1, UNPACKED_AT_ONCE.get(w.device.type, 1 << 24) // (stack * OUTPUTS * packed.depth))
    for first in range(0, panels, step):
        part = _unpack(packed.blocks[:, first : first + step], packed.bits)
        w[:, first * OUTPUTS : (first + step) * OUTPUTS].view_as(part).copy_(part)
    return w[:, : packed.outputs]


def _unpack(blocks: Tensor, bits: Bits) -> Tensor:
    """The weights of integer blocks, float32 (E, panels, 16, G, 32)."""
    body, words = blocks.split([blocks.shape[-1] - SCALE_BYTES, SCALE_BYTES], dim=-1)
    words = words.contiguous().view(torch.int16).int()  # (E, panels, G, 16)
    if bits == 8:  # chunk, output, input
        q = body.contiguous().view(torch.int8).unflatten(-1, (16, OUTPUTS, 2)).transpose(-3, -2)
    else:  # half panel, chunk, output, low or high half byte, input
        parts = torch.stack([half.unflatten(-1, (2, 4, 8, 4)) for half in (body & 15, body >> 4)], dim=-2)
        q = parts.transpose(-4, -3)
    return weights(q.reshape(*words.shape, GROUP).float(), words, bits).transpose(2, 3)


def _arrange(integers_FGX: Tensor, words_FG: Tensor, bits: Bits) -> Tensor:
    """Blocks (panels, G, bytes) of one matrix."""
    q = _panels(integers_FGX).to(torch.int8)
    words = torch.nn.functional.pad(words_FG, (0, 0, 0, -len(words_FG) % OUTPUTS)).to(torch.int16)
    if bits == 8:
        body = q.unflatten(-1, (16, 2)).transpose(-3, -2).flatten(2).contiguous().view(torch.uint8)
    else:  # half panel, chunk, output, low or high half byte, input
        chunks = q.to(torch.uint8).unflatten(2, (2, 8)).unflatten(-1, (4, 2, 4)).transpose(-4, -3)
        body = (chunks[..., 0, :] | chunks[..., 1, :] << 4).flatten(2)
    packed_words = words.unflatten(0, (-1, OUTPUTS)).transpose(1, 2).contiguous().view(torch.uint8)
    return torch.cat((body, packed_words), dim=-1)


def _panels(values_FGX: Tensor) -> Tensor:
    """(panels, G, 16 outputs, X), the last panel filled up with zeros."""
    whole_FGX = torch.nn.functional.pad(values_FGX, (0, 0, 0, 0, 0, -len(values_FGX) % OUTPUTS))
    return whole_FGX.unflatten(0, (-1, OUTPUTS)).transpose(1, 2)
