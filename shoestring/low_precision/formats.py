"""Small floating-point formats with a scale for each block: e4m3, E5M6 and e2m1 (V3 section 3.3, V4).

A block is divided by its scale, the largest magnitude over the format's largest value, so that it uses the
whole range. Rounding is to nearest, ties to even; the formulas are those of DeepSeek's TileKernels.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

E5M6_STEP = 2.0**-20
"""Distance of the numbers below 2^-14 in E5M6."""
E2M1_VALUES = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0])


class Format(NamedTuple):
    """A format: its largest value, the least magnitude that a block is scaled for, and its rounding."""

    largest: float
    least: float
    round: Callable[[Tensor], Tensor]
    """From float32 within the largest value to float32 values that the format has."""


class Blocks(NamedTuple):
    """A matrix in a small format: values times the scale of their block."""

    values: Tensor  # (N, D) float32 that the format represents exactly
    scales: Tensor  # (blocks down, blocks across) float32
    size: tuple[int, int]

    def dequantize(self) -> Tensor:
        """The matrix in float32.  # (N, D)"""
        return self.values * _spread(self.scales, self.size, self.values.shape)


def quantize(x: Tensor, kind: Format, size: tuple[int, int], *, power_of_two: bool = False) -> Blocks:
    """Round a matrix (N, D) block by block; blocks at the edges are cut short.

    With `power_of_two` scales are rounded up to one, so that dividing by them loses nothing (UE8M0).
    """
    x = x.float()
    largest = _block_maxima(x.abs(), size).clamp(min=kind.least)
    scales = largest / torch.full_like(largest, kind.largest)
    if power_of_two:
        scales = round_up(scales)
        inverse = 1.0 / scales
    else:
        inverse = torch.full_like(largest, kind.largest) / largest
    scaled = x * _spread(inverse, size, x.shape)
    return Blocks(kind.round(scaled.clamp(-kind.largest, kind.largest)), scales, size)


def round_up(scales: Tensor) -> Tensor:
    """The least power of two that is not below each positive scale."""
    return ((scales.view(torch.int32) + 0x7FFFFF) & 0x7F800000).view(torch.float32)


def round_e4m3(x: Tensor) -> Tensor:
    """Nearest values with 4 bits of exponent and 3 of mantissa: up to 448, without infinities."""
    return x.to(torch.float8_e4m3fn).float()


def round_e5m6(x: Tensor) -> Tensor:
    """Nearest values with 5 bits of exponent and 6 of mantissa: up to 65,024.

    Below 2^-14 the rounding bit comes from the float32's own low bits, as in TileKernels.
    """
    bits = x.contiguous().view(torch.int32)
    low, kept = bits & 0x1FFFF, bits & ~0x1FFFF
    is_odd = (bits >> 17) & 1
    normal = (kept + ((low + is_odd > 0x10000).int() << 17)).view(torch.float32)
    steps = (x.abs() / E5M6_STEP).floor()
    steps = steps + (steps.int() % 2 + low > 0x10000)
    return torch.where(x.abs() < 2.0**-14, torch.copysign(steps * E5M6_STEP, x), normal)


def round_e2m1(x: Tensor) -> Tensor:
    """Nearest of 0, 0.5, 1, 1.5, 2, 3, 4 and 6 with their signs."""
    return torch.copysign(E2M1_VALUES.to(x.device)[e2m1_codes(x).long()], x)


def e2m1_codes(x: Tensor) -> Tensor:
    """Codes 0 to 7 of the nearest magnitudes, uint8; the even code takes a tie."""
    middles = (E2M1_VALUES[1:] + E2M1_VALUES[:-1]) / 2
    odd = torch.arange(len(middles)) % 2 == 1  # a tie goes up from an odd code
    bounds = torch.where(odd, torch.nextafter(middles, torch.zeros_like(middles)), middles)
    return torch.bucketize(x.abs(), bounds.to(x.device)).to(torch.uint8)


def pack_e2m1(x: Tensor) -> Tensor:
    """Two values a byte, the first in the low four bits, the sign above the code: (N, D) to (N, D / 2)."""
    codes = e2m1_codes(x) | (torch.signbit(x).to(torch.uint8) << 3)
    return codes[:, 0::2] | (codes[:, 1::2] << 4)


def unpack_e2m1(data: Tensor) -> Tensor:
    """The values of `pack_e2m1`, float32: (N, D / 2) to (N, D)."""
    codes = torch.stack((data & 15, data >> 4), dim=-1).flatten(1)
    magnitudes = E2M1_VALUES.to(data.device)[(codes & 7).long()]
    return torch.where(codes >= 8, -magnitudes, magnitudes)


E4M3 = Format(448.0, 1e-4, round_e4m3)
E5M6 = Format(65024.0, 1e-4, round_e5m6)
E2M1 = Format(6.0, 6.0 * 2.0**-126, round_e2m1)


def _block_maxima(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Largest entry of each block of a matrix that is nowhere negative."""
    (rows, columns), (height, width) = x.shape, size
    padded = F.pad(x, (0, -columns % width, 0, -rows % height))
    return padded.unflatten(1, (-1, width)).amax(2).unflatten(0, (-1, height)).amax(1)


def _spread(scales: Tensor, size: tuple[int, int], shape: torch.Size) -> Tensor:
    """A block's scale at each of its entries.  # `shape`"""
    rows = scales.repeat_interleave(size[0], dim=0)[: shape[0]]
    return rows.repeat_interleave(size[1], dim=1)[:, : shape[1]]
