"""The public operations: reference.py's signatures, run by the fastest twin this device has."""

import logging
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from shoestring.kernels import native, reference

log = logging.getLogger(__name__)


@cache
def pick(op: str, device_type: str, dtype: torch.dtype) -> Callable[..., Any]:
    """The implementation of `op` for this device and precision; says which one, once."""
    rooms: list[Any] = [native, reference]
    if device_type == "cpu" and dtype == torch.float32:
        from shoestring.kernels import cpu_build, cpu_fused

        if cpu_build.library() is not None:
            rooms.insert(0, cpu_fused)
    room = next(room for room in rooms if hasattr(room, op))
    log.info("%s on %s in %s: %s", op, device_type, dtype, room.__name__)
    return getattr(room, op)


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """See reference.rms_norm."""
    return pick("rms_norm", x.device.type, x.dtype)(x, weight, eps)


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """See reference.swiglu."""
    return pick("swiglu", gate.device.type, gate.dtype)(gate, up)


def swiglu_packed(gate_up: Tensor) -> Tensor:
    """See reference.swiglu_packed."""
    return pick("swiglu_packed", gate_up.device.type, gate_up.dtype)(gate_up)


def rotate(x_NHD: Tensor, cos_NR: Tensor, sin_NR: Tensor, interleave: bool) -> Tensor:
    """See reference.rotate."""
    return pick("rotate", x_NHD.device.type, x_NHD.dtype)(x_NHD, cos_NR, sin_NR, interleave)


def causal_attention(q_BTHD: Tensor, k_BTGD: Tensor, v_BTGV: Tensor, scale: float) -> Tensor:
    """See reference.causal_attention."""
    return pick("causal_attention", q_BTHD.device.type, q_BTHD.dtype)(q_BTHD, k_BTGD, v_BTGV, scale)


def grouped_linear(x_ND: Tensor, weight_EFD: Tensor, ends_E: Tensor) -> Tensor:
    """See reference.grouped_linear."""
    return pick("grouped_linear", x_ND.device.type, x_ND.dtype)(x_ND, weight_EFD, ends_E)


def dispatch(tokens_ND: Tensor, positions_NK: Tensor) -> Tensor:
    """See reference.dispatch."""
    return pick("dispatch", tokens_ND.device.type, tokens_ND.dtype)(tokens_ND, positions_NK)


def combine(rows_MD: Tensor, positions_NK: Tensor, weights_NK: Tensor) -> Tensor:
    """See reference.combine."""
    return pick("combine", rows_MD.device.type, rows_MD.dtype)(rows_MD, positions_NK, weights_NK)


def cross_entropy_rows(logits_NW: Tensor, targets_N: Tensor, weights_N: Tensor | None) -> Tensor:
    """See reference.cross_entropy_rows."""
    chosen = pick("cross_entropy_rows", logits_NW.device.type, logits_NW.dtype)
    return chosen(logits_NW, targets_N, weights_N)


def linear_cross_entropy(
    hidden_ND: Tensor, weight_WD: Tensor, targets_N: Tensor, weights_N: Tensor, *, rows_at_once: int = 512
) -> tuple[Tensor, Tensor]:
    """Cross-entropy of hidden @ weight^T without ever holding all logits.

    Returns (sum of weights * nll, nll (N,) without gradient), both float32. A negative target counts nothing.
    The gradients are made on the way forward, `rows_at_once` rows of logits at a time, still in cache.
    """
    loss, nll_N = _LinearCrossEntropy.apply(hidden_ND, weight_WD, targets_N, weights_N, rows_at_once)
    return loss, nll_N


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden_ND: Tensor, weight_WD: Tensor, targets_N: Tensor, weights_N: Tensor, rows: int
    ) -> tuple[Tensor, Tensor]:
        needs_grad = any(ctx.needs_input_grad[:2])
        weight = weight_WD.to(hidden_ND.dtype)
        nll_N = hidden_ND.new_empty(hidden_ND.shape[0], dtype=torch.float32)
        d_hidden = torch.empty_like(hidden_ND) if needs_grad else None
        d_weight = torch.zeros_like(weight_WD) if needs_grad else None
        for part in range(0, hidden_ND.shape[0], rows):
            span = slice(part, part + rows)
            logits = hidden_ND[span] @ weight.T
            nll_N[span] = cross_entropy_rows(logits, targets_N[span], weights_N[span] if needs_grad else None)
            if d_hidden is not None and d_weight is not None:
                torch.mm(logits, weight, out=d_hidden[span])
                d_weight.addmm_(logits.T.to(d_weight.dtype), hidden_ND[span].to(d_weight.dtype))
        ctx.save_for_backward(d_hidden, d_weight)
        ctx.mark_non_differentiable(nll_N)
        return (nll_N * weights_N).sum(), nll_N

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_loss: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        d_hidden, d_weight = ctx.saved_tensors
        return d_hidden * d_loss.to(d_hidden.dtype), d_weight * d_loss.to(d_weight.dtype), None, None, None
