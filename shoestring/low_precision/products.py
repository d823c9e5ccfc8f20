"""Products and SwiGLU of FP8 training (V3 section 3.3), with values rounded to the formats they would have.

Outputs and gradients are those of the hardware but for the order of float32 sums: products of a block are
summed in float32 here, and by Hopper's tensor cores with about 14 bits until 128 are promoted to float32.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from shoestring.kernels import grouped_linear
from shoestring.low_precision.formats import E4M3, E5M6, Format, quantize

ROW, COLUMN, BLOCK = (1, 128), (128, 1), (128, 128)


@dataclass(frozen=True, kw_only=True)
class Precision:
    """Formats and blocks of a product's operands."""

    weight: Format = E4M3
    weight_block: tuple[int, int] = BLOCK
    gradient_block: tuple[int, int] | None = None
    """Blocks of activations' gradients; None: rows of 128 for the input's gradient, columns for the weight's.
    Blocks of 128 x 128 diverge in training (V3 appendix B.2)."""
    keeps_six_bits: bool = False
    """Keep the input for the weight's gradient in E5M6: for inputs that attention needs too."""
    power_of_two: bool = False
    """Scales of weights are powers of two."""


def grouped_product(x_ND: Tensor, weight_EFD: Tensor, ends_E: Tensor, precision: Precision) -> Tensor:
    """kernels.grouped_linear in FP8.  # (N, F)"""
    return _Product.apply(x_ND, weight_EFD, ends_E, precision)


def product(x: Tensor, weight_FD: Tensor, bias_F: Tensor | None, precision: Precision) -> Tensor:
    """kernels.linear in FP8, the bias in the input's precision.  # (..., F)"""
    x_ND = x.flatten(0, -2)
    ends_E = torch.tensor([len(x_ND)], dtype=torch.int32, device=x.device)
    y = grouped_product(x_ND, weight_FD[None], ends_E, precision).unflatten(0, x.shape[:-1])
    return y if bias_F is None else y + bias_F.to(y.dtype)


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """kernels.swiglu, whose gradients are taken at gate and up in FP8, as which they are kept."""
    return _SwiGLU.apply(gate, up)


def swiglu_packed(gate_up_MF: Tensor) -> Tensor:
    """kernels.swiglu_packed in the same way."""
    return swiglu(*gate_up_MF.chunk(2, dim=-1))


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_ND: Tensor, weight_EFD: Tensor, ends_E: Tensor, precision: Precision) -> Tensor:
        rows_ND = quantize(x_ND, E4M3, ROW).dequantize()
        weights_EFD = _rounded_weights(weight_EFD, precision)
        stored_ND = rows_ND
        if precision.keeps_six_bits:
            stored_ND = quantize(x_ND, E5M6, ROW, power_of_two=True).dequantize()
        ctx.save_for_backward(stored_ND, weights_EFD, ends_E)
        ctx.precision, ctx.weight_dtype = precision, weight_EFD.dtype
        return grouped_linear(rows_ND, weights_EFD, ends_E).to(x_ND.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient_NF,), (stored_ND, weights_EFD, ends_E) = gradients, ctx.saved_tensors
        block = ctx.precision.gradient_block
        x_gradient = weight_gradient = None
        if ctx.needs_input_grad[0]:
            rows_NF = quantize(gradient_NF, E4M3, block or ROW).dequantize()
            transposed_EDF = weights_EFD.transpose(1, 2).contiguous()
            x_gradient = grouped_linear(rows_NF, transposed_EDF, ends_E).to(gradient_NF.dtype)
        if ctx.needs_input_grad[1]:
            starts = [0, *ends_E.tolist()]
            slices = [slice(*ends) for ends in pairwise(starts)]
            parts = [_weight_gradient(gradient_NF[part], stored_ND[part], block or COLUMN) for part in slices]
            weight_gradient = torch.stack(parts).to(ctx.weight_dtype)
        return x_gradient, weight_gradient, None, None


class _SwiGLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        pair = [quantize(part.flatten(0, -2), E4M3, ROW).dequantize().view_as(part) for part in (gate, up)]
        ctx.save_for_backward(*(part.to(gate.dtype) for part in pair))
        return F.silu(gate) * up

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        (gradient,), (gate, up) = gradients, ctx.saved_tensors
        sigmoid = gate.sigmoid()
        silu = gate * sigmoid
        return gradient * up * sigmoid * (1 + gate - silu), gradient * silu


def _rounded_weights(weight_EFD: Tensor, precision: Precision) -> Tensor:
    """Weights rounded expert by expert, float32: blocks do not reach from one expert into the next."""
    options = {"power_of_two": precision.power_of_two}
    parts = [quantize(w, precision.weight, precision.weight_block, **options) for w in weight_EFD]
    return torch.stack([part.dequantize() for part in parts])


def _weight_gradient(gradient_NF: Tensor, x_ND: Tensor, block: tuple[int, int]) -> Tensor:
    """Gradient (F, D) of one expert's weight from its own rows."""
    left = quantize(gradient_NF, E4M3, block).dequantize()
    return left.T @ quantize(x_ND, E4M3, COLUMN).dequantize()
