"""Linear layers whose float32 matrices are multiplied in bfloat16, forward and backward; sums are float32."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from shoestring.kernels import ops


def linear_bf16(x: Tensor, weight_FD: Tensor, bias_F: Tensor | None = None) -> Tensor:
    """`linear` by `product_bf16`, and its gradients too; x in 16 bits is computed as ever."""
    if x.dtype != torch.float32:
        return ops.linear(x, weight_FD, bias_F)
    y = _Linear.apply(x.flatten(0, -2), weight_FD.float()).view(*x.shape[:-1], len(weight_FD))
    return y if bias_F is None else y + bias_F


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_ND: Tensor, weight_FD: Tensor) -> Tensor:
        ctx.save_for_backward(x_ND, weight_FD)
        return ops.product_bf16(x_ND, weight_FD.T)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy_NF: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x_ND, weight_FD = ctx.saved_tensors
        dx_ND = ops.product_bf16(dy_NF, weight_FD) if ctx.needs_input_grad[0] else None
        return dx_ND, ops.product_bf16(dy_NF.T, x_ND) if ctx.needs_input_grad[1] else None


def grouped_linear_bf16(x_ND: Tensor, weight_EFD: Tensor, ends_E: Tensor) -> Tensor:
    """`grouped_linear` by `grouped_product_bf16`, and its gradients too."""
    if x_ND.dtype != torch.float32:
        return ops.grouped_linear(x_ND, weight_EFD, ends_E)
    return _GroupedLinear.apply(x_ND, weight_EFD.float(), ends_E)


class _GroupedLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_ND: Tensor, weight_EFD: Tensor, ends_E: Tensor) -> Tensor:
        ctx.save_for_backward(x_ND, weight_EFD, ends_E)
        return ops.grouped_product_bf16(x_ND, weight_EFD.mT, ends_E)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy_NF: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x_ND, weight_EFD, ends_E = ctx.saved_tensors
        dx_ND = ops.grouped_product_bf16(dy_NF, weight_EFD, ends_E) if ctx.needs_input_grad[0] else None
        d_weight = ops.grouped_outer_bf16(dy_NF, x_ND, ends_E) if ctx.needs_input_grad[1] else None
        return dx_ND, d_weight, None
