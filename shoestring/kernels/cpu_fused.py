"""Float32 operations with gradients on a CPU, in our own C++: values are read and written once."""

from collections.abc import Iterable
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from shoestring.kernels import reference
from shoestring.kernels.cpu_call import call

WIDEST_IN_CACHE = 384
"""Columns of the largest matrices whose products are in a core's cache altogether, 2 MB with their copies."""


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """See reference.rms_norm."""
    return _RMSNorm.apply(x.contiguous(), weight.to(x.dtype).contiguous(), eps)


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        width = x.shape[-1]
        y, inverse = torch.empty_like(x), x.new_empty(x.numel() // width)
        call("rms_norm_forward", inverse.numel(), width, float(eps), x, weight, y, inverse)
        ctx.save_for_backward(x, weight, inverse)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, inverse = ctx.saved_tensors
        dy, dx, dweight = dy.contiguous(), torch.empty_like(x), torch.empty_like(weight)
        call("rms_norm_backward", inverse.numel(), x.shape[-1], x, weight, inverse, dy, dx, dweight)
        return dx, dweight, None


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """See reference.swiglu."""
    return _SwiGLU.apply(gate.contiguous(), up.contiguous())


class _SwiGLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        y, width = torch.empty_like(gate), gate.shape[-1]
        call("swiglu_forward", gate.numel() // width, width, width, gate, up, y)
        ctx.save_for_backward(gate, up)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor]:
        gate, up = ctx.saved_tensors
        dy, dgate, dup, width = dy.contiguous(), torch.empty_like(gate), torch.empty_like(up), gate.shape[-1]
        call("swiglu_backward", gate.numel() // width, width, width, gate, up, dy, dgate, dup)
        return dgate, dup


def swiglu_packed(gate_up: Tensor) -> Tensor:
    """See reference.swiglu_packed."""
    return _SwiGLUPacked.apply(gate_up.contiguous())


class _SwiGLUPacked(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate_up: Tensor) -> Tensor:
        width = gate_up.shape[-1] // 2
        y = gate_up.new_empty(*gate_up.shape[:-1], width)
        call("swiglu_forward", y.numel() // width, width, 2 * width, gate_up, gate_up[..., width:], y)
        ctx.save_for_backward(gate_up)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        dy, dx, width = dy.contiguous(), torch.empty_like(x), x.shape[-1] // 2
        halves = (x, x[..., width:], dy, dx, dx[..., width:])
        call("swiglu_backward", dy.numel() // width, width, 2 * width, *halves)
        return dx


def rotate(x_NHD: Tensor, cos_NA: Tensor, sin_NA: Tensor, interleave: bool) -> Tensor:
    """See reference.rotate."""
    cos, sin = (angles.to(x_NHD.dtype).contiguous() for angles in (cos_NA, sin_NA))
    return _Rotate.apply(x_NHD.contiguous(), cos, sin, interleave)


class _Rotate(torch.autograd.Function):
    @staticmethod
    def turn(x: Tensor, cos: Tensor, sin: Tensor, interleave: bool, direction: float) -> Tensor:
        y = torch.empty_like(x)
        call("rotate", *x.shape, 2 * cos.shape[-1], int(interleave), direction, x, cos, sin, y)
        return y

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor, interleave: bool) -> Tensor:
        ctx.save_for_backward(cos, sin)
        ctx.interleave = interleave
        return _Rotate.turn(x, cos, sin, interleave, 1.0)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        cos, sin = ctx.saved_tensors
        return _Rotate.turn(dy.contiguous(), cos, sin, ctx.interleave, -1.0), None, None, None


def causal_attention(
    q_BTHD: Tensor, k_BTGD: Tensor, v_BTGV: Tensor, scale: float, segments_S2: Tensor | None = None
) -> Tensor:
    """See reference.causal_attention."""
    q, k, v = q_BTHD.contiguous(), k_BTGD.contiguous(), v_BTGV.contiguous()
    segments = _segments(q, segments_S2)
    return _Attention.apply(q, k, v, None, _Angles(None, None, 0), segments, scale)


def expanded_attention(
    q_BTHD: Tensor,
    kv_BTHU: Tensor,
    k_rope_BTR: Tensor,
    cos_NA: Tensor,
    sin_NA: Tensor,
    interleave: bool,
    scale: float,
    segments_S2: Tensor | None = None,
) -> Tensor:
    """See reference.expanded_attention."""
    q, kv, k_rope = q_BTHD.contiguous(), kv_BTHU.contiguous(), k_rope_BTR.contiguous()
    cos, sin = (angles.to(q.dtype).contiguous() for angles in (cos_NA, sin_NA))
    segments = _segments(q, segments_S2)
    return _Attention.apply(q, kv, None, k_rope, _Angles(cos, sin, int(interleave)), segments, scale)


class _Angles(NamedTuple):
    """Rotary tables of the rows, and whether pairs are neighbors; none where all is rotated already."""

    cos_NA: Tensor | None
    sin_NA: Tensor | None
    interleave: int


def _segments(q_BTHD: Tensor, segments_S2: Tensor | None) -> Tensor:
    """The segments of the rows: by default the B sequences."""
    if segments_S2 is not None:
        return segments_S2.contiguous()
    return torch.tensor([[q_BTHD.shape[1], 0]]).repeat(q_BTHD.shape[0], 1)


class _Attention(torch.autograd.Function):
    """Keys and values apart, or kv in the place of keys with one rotated part of the keys for all heads."""

    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor | None,
        k_rope: Tensor | None,
        angles: _Angles,
        segments: Tensor,
        scale: float,
    ) -> Tensor:
        heads, width = q.shape[2:]
        rope = 0 if k_rope is None else k_rope.shape[-1]
        value_width = v.shape[-1] if v is not None else k.shape[-1] - width + rope
        out, lse = q.new_empty(*q.shape[:3], value_width), q.new_empty(q.shape[:3])
        sizes = (len(segments), heads, k.shape[2], width, value_width, rope, angles.interleave)
        ctx.sizes = (*sizes, float(scale))
        call("attention_forward", *ctx.sizes, segments, q, k, v, k_rope, *angles[:2], out, lse)
        ctx.save_for_backward(segments, q, k, v, k_rope, *angles[:2], out, lse)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dout: Tensor) -> tuple[Tensor | None, ...]:
        tensors = ctx.saved_tensors
        grads = [None if x is None else torch.empty_like(x) for x in tensors[1:5]]
        call("attention_backward", *ctx.sizes, *tensors, dout.contiguous(), *grads)
        return *grads, None, None, None


def dispatch(tokens_ND: Tensor, positions_NK: Tensor) -> Tensor:
    """See reference.dispatch."""
    return _Dispatch.apply(tokens_ND.contiguous(), positions_NK.contiguous())


class _Dispatch(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tokens: Tensor, positions: Tensor) -> Tensor:
        rows = tokens.new_empty(positions.numel(), tokens.shape[1])
        call("dispatch_rows", *positions.shape, tokens.shape[1], positions, tokens, None, rows)
        ctx.save_for_backward(positions)
        return rows

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, drows: Tensor) -> tuple[Tensor | None, ...]:
        (positions,) = ctx.saved_tensors
        drows, dtokens = drows.contiguous(), drows.new_empty(positions.shape[0], drows.shape[1])
        call("combine_rows", *positions.shape, drows.shape[1], positions, drows, None, dtokens)
        return dtokens, None


def combine(rows_MD: Tensor, positions_NK: Tensor, weights_NK: Tensor) -> Tensor:
    """See reference.combine."""
    arguments = (rows_MD.contiguous(), positions_NK.contiguous(), weights_NK.to(rows_MD.dtype).contiguous())
    return _Combine.apply(*arguments)


class _Combine(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, positions: Tensor, weights: Tensor) -> Tensor:
        tokens = rows.new_empty(positions.shape[0], rows.shape[1])
        call("combine_rows", *positions.shape, rows.shape[1], positions, rows, weights, tokens)
        ctx.save_for_backward(rows, positions, weights)
        return tokens

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dtokens: Tensor) -> tuple[Tensor | None, ...]:
        rows, positions, weights = ctx.saved_tensors
        dtokens, drows, dweights = dtokens.contiguous(), torch.empty_like(rows), torch.empty_like(weights)
        sizes = (*positions.shape, rows.shape[1])
        call("dispatch_rows", *sizes, positions, dtokens, weights, drows)
        call("combine_weights_backward", *sizes, positions, rows, dtokens, dweights)
        return drows, None, dweights


def cross_entropy_rows(logits_NW: Tensor, targets_N: Tensor, weights_N: Tensor | None) -> Tensor:
    """See reference.cross_entropy_rows."""
    if not logits_NW.is_contiguous():
        raise ValueError("cross_entropy_rows writes into its logits, which must be contiguous")
    targets = targets_N.to(torch.int64).contiguous()
    if targets.numel() and int(targets.max()) >= logits_NW.shape[1]:
        raise IndexError(f"target {int(targets.max())} is not below the vocabulary size {logits_NW.shape[1]}")
    nll = logits_NW.new_empty(logits_NW.shape[0])
    weights = None if weights_N is None else weights_N.to(logits_NW.dtype).contiguous()
    call("cross_entropy", *logits_NW.shape, logits_NW, targets, weights, nll)
    return nll


def newton_schulz(x_EFD: Tensor, steps: int) -> Tensor:
    """See reference.newton_schulz; without gradients, and of large matrices by PyTorch's products."""
    if x_EFD.shape[-1] > WIDEST_IN_CACHE:
        return reference.newton_schulz(x_EFD, steps)
    y_EFD = x_EFD.clone(memory_format=torch.contiguous_format)
    call("newton_schulz", *y_EFD.shape, steps, *reference.QUINTIC, y_EFD)
    return y_EFD


def newton_schulz_bf16(x_EFD: Tensor, steps: int) -> Tensor:
    """See reference.newton_schulz_bf16; without gradients."""
    if not has_bf16_products():
        return reference.newton_schulz_bf16(x_EFD, steps)
    y_EFD = x_EFD.clone(memory_format=torch.contiguous_format)
    call("newton_schulz_bf16", *y_EFD.shape, steps, *reference.QUINTIC, y_EFD)
    return y_EFD


@cache
def has_bf16_products() -> bool:
    """Return whether this CPU and its operating system have the matrix unit AMX-BF16."""
    return bool(call("bf16_available"))


class _Rows(NamedTuple):
    """A float32 matrix, or a stack of them, as the kernel reads it: rows or columns beside each other."""

    values: Tensor
    stride: int
    is_transposed: int

    @classmethod
    def of(cls, x: Tensor) -> "_Rows":
        """`x` (..., rows, columns), copied if neither its rows nor its columns lie beside each other."""
        if x.stride(-1) != 1 and x.stride(-2) == 1:
            return cls(x, x.stride(-1), 1)
        x = x if x.stride(-1) == 1 else x.contiguous()
        return cls(x, x.stride(-2), 0)


def product_bf16(a_MK: Tensor, b_KN: Tensor) -> Tensor:
    """See reference.product_bf16."""
    if not has_bf16_products():
        return reference.product_bf16(a_MK, b_KN)
    a, b, c_MN = _Rows.of(a_MK), _Rows.of(b_KN.mT), a_MK.new_empty(len(a_MK), b_KN.shape[1])
    _multiply([[*c_MN.shape, len(b_KN), a.stride, b.stride, b_KN.shape[1], 0, 0, 0]], a, b, c_MN)
    return c_MN


def grouped_product_bf16(rows_MK: Tensor, matrices_EKN: Tensor, ends_E: Tensor) -> Tensor:
    """See reference.grouped_product_bf16."""
    if not has_bf16_products():
        return reference.grouped_product_bf16(rows_MK, matrices_EKN, ends_E)
    rows_MK, (depth, width) = rows_MK.contiguous(), matrices_EKN.shape[1:]
    a, b, c_MN = _Rows.of(rows_MK), _Rows.of(matrices_EKN.mT), rows_MK.new_empty(len(rows_MK), width)
    step = b.values.stride(0)
    _multiply(
        [
            [end - start, width, depth, a.stride, b.stride, width, start * a.stride, e * step, start * width]
            for e, (start, end) in enumerate(_groups(ends_E))
        ],
        *(a, b, c_MN),
    )
    return c_MN


def grouped_outer_bf16(left_MF: Tensor, right_MD: Tensor, ends_E: Tensor) -> Tensor:
    """See reference.grouped_outer_bf16."""
    if not has_bf16_products():
        return reference.grouped_outer_bf16(left_MF, right_MD, ends_E)
    left, right, (height, width) = (
        left_MF.contiguous(),
        right_MD.contiguous(),
        (left_MF.shape[1], right_MD.shape[1]),
    )
    c_EFD = left.new_empty(len(ends_E), height, width)
    _multiply(
        [
            [
                height,
                width,
                end - start,
                height,
                width,
                width,
                start * height,
                start * width,
                e * height * width,
            ]
            for e, (start, end) in enumerate(_groups(ends_E))
        ],
        *(_Rows(left, height, 1), _Rows(right, width, 1), c_EFD),
    )
    return c_EFD


def _groups(ends_E: Tensor) -> Iterable[tuple[int, int]]:
    """First row of each expert, and that after its last."""
    ends = ends_E.tolist()
    return zip([0, *ends], ends, strict=False)


def _multiply(numbers: list[list[int]], a: _Rows, b: _Rows, c: Tensor) -> None:
    """Write products a b^T into c; each has nine numbers, see bf16_products.cpp."""
    sizes = torch.tensor(numbers, dtype=torch.int64)
    call("bf16_products", len(numbers), sizes, a.is_transposed, b.is_transposed, a.values, b.values, c)
