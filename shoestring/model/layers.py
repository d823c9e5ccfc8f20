"""RMSNorm, linear layers, rotary tables with YaRN, SwiGLU."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import ClassVar

import torch
from torch import Tensor, nn

from shoestring import kernels
from shoestring.model.adapter import Adapter
from shoestring.model.config import RopeConfig
from shoestring.model.yarn import cos_sin_factor, yarn_mscale


class RMSNorm(nn.Module):
    """x over its root mean square, times a learned weight."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return kernels.rms_norm(x, self.weight, self.eps)


class Linear(nn.Linear):
    """A linear layer that computes in the precision of its input, whatever that of its weights.

    `product` may be replaced by another of the same signature (low_precision/).
    """

    adapter_slots: ClassVar[Mapping[str, str]] = {"weight": "adapter"}
    adapter: Adapter | None
    product: Callable[[Tensor, Tensor, Tensor | None], Tensor]

    def __init__(self, in_features: int, out_features: int, bias: bool = True) -> None:
        super().__init__(in_features, out_features, bias)
        self.register_module("adapter", None)
        self.product = kernels.linear

    def forward(self, x: Tensor) -> Tensor:
        y = self.product(x, self.weight, self.bias)
        return y if self.adapter is None else self.adapter(x, y, self.weight, self.bias)

    def matrix_shape(self, parameter: str) -> tuple[int, ...]:
        """See AdaptedLayer."""
        return (self.out_features, self.in_features)


class Embedding(nn.Embedding):
    """A vector for each token."""

    def reset_parameters(self) -> None:
        # On the meta device there is nothing to draw, and PyTorch would import its compiler for it: 70 MB.
        if not self.weight.is_meta:
            super().reset_parameters()


class MLP(nn.Module):
    """Dense SwiGLU feed-forward."""

    activation: Callable[[Tensor, Tensor], Tensor]

    def __init__(self, hidden_size: int, intermediate_size: int) -> None:
        super().__init__()
        self.gate_proj = Linear(hidden_size, intermediate_size, bias=False)
        self.up_proj = Linear(hidden_size, intermediate_size, bias=False)
        self.down_proj = Linear(intermediate_size, hidden_size, bias=False)
        self.activation = kernels.swiglu

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(self.activation(self.gate_proj(x), self.up_proj(x)))


@dataclass(frozen=True)
class Rotation:
    """Rotary tables of N positions: cos and sin of A angles, and whether pairs are neighbors (interleave)."""

    cos_NA: Tensor
    sin_NA: Tensor
    interleave: bool

    def apply(self, x_BTHD: Tensor) -> Tensor:
        """Rotate the last R dims of every head."""
        flat_NHD = x_BTHD.flatten(0, 1)
        return kernels.rotate(flat_NHD, self.cos_NA, self.sin_NA, self.interleave).view_as(x_BTHD)


def build_rotation(rope: RopeConfig, width: int, positions_BT: Tensor) -> Rotation:
    """Tables for heads that rotate `width` dims; YaRN scales cos and sin (arXiv 2309.00071)."""
    frequencies_A = inverse_frequencies(rope, width).to(positions_BT.device)
    angles_NA = positions_BT.flatten()[:, None].float() * frequencies_A
    factor = cos_sin_factor(rope)
    return Rotation(angles_NA.cos() * factor, angles_NA.sin() * factor, rope.interleave)


@cache
def inverse_frequencies(rope: RopeConfig, width: int) -> Tensor:
    """Radians per position of each of the width / 2 pairs, float32, on the CPU."""
    exponent = torch.arange(0, width, 2, dtype=torch.float32, device="cpu") / width
    plain = 1.0 / rope.rope_theta**exponent
    if rope.rope_type == "default":
        return plain
    if rope.rope_type == "linear":
        return plain / rope.factor
    if rope.rope_type == "llama3":
        return _llama3(plain, rope)
    return _yarn(plain, rope, width)


def _llama3(plain: Tensor, rope: RopeConfig) -> Tensor:
    """Llama 3.1: long wavelengths slow down by `factor`, short ones stay, with a linear blend between."""
    rotations = _original_length(rope) * plain / (2 * math.pi)  # within the original context
    blend = (rotations - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor)
    blend = blend.clamp(0, 1)
    return (1 - blend) * plain / rope.factor + blend * plain


def _yarn(plain: Tensor, rope: RopeConfig, width: int) -> Tensor:
    """YaRN, "NTK by parts": pairs that rotate often keep their frequency, slow ones are interpolated."""

    def pair_that_rotates(times: float) -> float:
        wavelengths = _original_length(rope) / (times * 2 * math.pi)
        return width * math.log(wavelengths) / (2 * math.log(rope.rope_theta))

    low = max(math.floor(pair_that_rotates(rope.beta_fast)), 0)
    high = min(math.ceil(pair_that_rotates(rope.beta_slow)), width - 1)
    ramp = (torch.arange(width // 2, dtype=torch.float32, device="cpu") - low) / max(high - low, 0.001)
    share = ramp.clamp(0, 1)  # of the interpolated frequency
    return plain * (1 - share) + plain / rope.factor * share


def _original_length(rope: RopeConfig) -> int:
    assert rope.original_max_position_embeddings is not None  # hf/rope.py fills it in
    return rope.original_max_position_embeddings


def softmax_scale(rope: RopeConfig, qk_head_dim: int) -> float:
    """1 / sqrt(d); DeepSeek's mscale_all_dim scales q and k alike, so it enters the logit squared."""
    scale = qk_head_dim**-0.5
    if rope.rope_type == "yarn" and rope.mscale_all_dim:
        scale *= yarn_mscale(rope.factor, rope.mscale_all_dim) ** 2
    return scale
