"""The public operations: signatures of reference.py, run by the fastest implementation on this device."""

import logging
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from shoestring.kernels import native, packed, reference, reference_layers, triton_call
from shoestring.kernels.layer_weights import (
    FeedForwardResult,
    FeedForwardWeights,
    GroupedAttentionWeights,
    LatentAttentionWeights,
    PagedRows,
    RouterWeights,
    Routing,
)
from shoestring.kernels.packed import Packed

log = logging.getLogger(__name__)


@cache
def pick(op: str, device_type: str, dtype: torch.dtype, inference: bool = False) -> Callable[..., Any]:
    """The implementation of `op` for this device and precision, logged once.

    For inference, a CPU takes first those whose rows do not depend on each other, and a GPU Triton's.
    """
    modules: list[Any] = [native, reference, reference_layers]
    if device_type == "cpu" and dtype == torch.float32:
        from shoestring.kernels import cpu_build, cpu_fused, cpu_layers, cpu_paged, cpu_rows

        if cpu_build.library() is not None:
            modules.insert(0, cpu_fused)
        if inference and packed.available():
            modules = [cpu_rows, cpu_paged, cpu_layers, *modules]
    if device_type == "cuda" and inference and dtype in triton_call.DTYPES and triton_call.available():
        from shoestring.kernels import triton_grouped, triton_paged

        modules = [triton_grouped, triton_paged, *modules]
    module = next(module for module in modules if hasattr(module, op))
    log.info("%s on %s in %s: %s", op, device_type, dtype, module.__name__)
    return getattr(module, op)


def _run(op: str, x: Tensor, *arguments: Any) -> Any:
    """Run the implementation of `op` for the device and precision of its first argument."""
    return pick(op, x.device.type, x.dtype, not torch.is_grad_enabled())(x, *arguments)


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """See reference.rms_norm."""
    return _run("rms_norm", x, weight, eps)


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """See reference.swiglu."""
    return _run("swiglu", gate, up)


def swiglu_packed(gate_up: Tensor) -> Tensor:
    """See reference.swiglu_packed."""
    return _run("swiglu_packed", gate_up)


def rotate(x_NHD: Tensor, cos_NA: Tensor, sin_NA: Tensor, interleave: bool) -> Tensor:
    """See reference.rotate."""
    return _run("rotate", x_NHD, cos_NA, sin_NA, interleave)


def causal_attention(
    q_BTHD: Tensor, k_BTGD: Tensor, v_BTGV: Tensor, scale: float, segments_S2: Tensor | None = None
) -> Tensor:
    """See reference.causal_attention."""
    return _run("causal_attention", q_BTHD, k_BTGD, v_BTGV, scale, segments_S2)


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
    rest = (kv_BTHU, k_rope_BTR, cos_NA, sin_NA, interleave, scale, segments_S2)
    return _run("expanded_attention", q_BTHD, *rest)


def linear(x: Tensor, weight_FD: Tensor, bias_F: Tensor | None = None) -> Tensor:
    """See reference.linear."""
    return _run("linear", x, weight_FD, bias_F)


def linear_stack(x_NHD: Tensor, weight_HFD: Tensor) -> Tensor:
    """See reference.linear_stack."""
    return _run("linear_stack", x_NHD, weight_HFD)


def grouped_linear(x_ND: Tensor, weight_EFD: Tensor, ends_E: Tensor) -> Tensor:
    """See reference.grouped_linear."""
    return _run("grouped_linear", x_ND, weight_EFD, ends_E)


def product_bf16(a_MK: Tensor, b_KN: Tensor) -> Tensor:
    """See reference.product_bf16; bf16.py has products with gradients."""
    return _run("product_bf16", a_MK, b_KN)


def grouped_product_bf16(rows_MK: Tensor, matrices_EKN: Tensor, ends_E: Tensor) -> Tensor:
    """See reference.grouped_product_bf16."""
    return _run("grouped_product_bf16", rows_MK, matrices_EKN, ends_E)


def grouped_outer_bf16(left_MF: Tensor, right_MD: Tensor, ends_E: Tensor) -> Tensor:
    """See reference.grouped_outer_bf16."""
    return _run("grouped_outer_bf16", left_MF, right_MD, ends_E)


def packed_linear(x: Tensor, weight: Packed, bias_F: Tensor | None = None) -> Tensor:
    """See reference.packed_linear."""
    return _run("packed_linear", x, weight, bias_F)


def packed_linear_stack(x_NHD: Tensor, weight: Packed) -> Tensor:
    """See reference.packed_linear_stack."""
    return _run("packed_linear_stack", x_NHD, weight)


def packed_experts(
    x_ND: Tensor, experts_NK: Tensor, weights_NK: Tensor, gate_up: Packed, down: Packed
) -> Tensor:
    """See reference.packed_experts."""
    return _run("packed_experts", x_ND, experts_NK, weights_NK, gate_up, down)


def dispatch(tokens_ND: Tensor, positions_NK: Tensor) -> Tensor:
    """See reference.dispatch."""
    return _run("dispatch", tokens_ND, positions_NK)


def combine(rows_MD: Tensor, positions_NK: Tensor, weights_NK: Tensor) -> Tensor:
    """See reference.combine."""
    return _run("combine", rows_MD, positions_NK, weights_NK)


def cross_entropy_rows(logits_NW: Tensor, targets_N: Tensor, weights_N: Tensor | None) -> Tensor:
    """See reference.cross_entropy_rows."""
    return _run("cross_entropy_rows", logits_NW, targets_N, weights_N)


def newton_schulz(x_EFD: Tensor, steps: int) -> Tensor:
    """See reference.newton_schulz."""
    return _run("newton_schulz", x_EFD, steps)


def newton_schulz_bf16(x_EFD: Tensor, steps: int) -> Tensor:
    """See reference.newton_schulz_bf16."""
    return _run("newton_schulz_bf16", x_EFD, steps)


def sample_tokens(logits_NW: Tensor, temperature_N: Tensor, number_N: Tensor) -> tuple[Tensor, Tensor]:
    """See reference.sample_tokens."""
    return _run("sample_tokens", logits_NW, temperature_N, number_N)


def uniform_numbers(seed_N: Tensor, index_N: Tensor) -> Tensor:
    """See reference.uniform_numbers."""
    return pick("uniform_numbers", seed_N.device.type, torch.float32, inference=True)(seed_N, index_N)


def paged_latent_attention(
    q_latent_NHC: Tensor,
    q_rope_NHR: Tensor,
    latent_USC: Tensor,
    k_rope_USR: Tensor,
    tables_BU: Tensor,
    sequence_N: Tensor,
    lengths_N: Tensor,
    scale: float,
) -> Tensor:
    """See reference.paged_latent_attention."""
    rest = (q_rope_NHR, latent_USC, k_rope_USR, tables_BU, sequence_N, lengths_N, scale)
    return _run("paged_latent_attention", q_latent_NHC, *rest)


def paged_attention(
    q_NHD: Tensor,
    key_USGD: Tensor,
    value_USGV: Tensor,
    tables_BU: Tensor,
    sequence_N: Tensor,
    lengths_N: Tensor,
    scale: float,
) -> Tensor:
    """See reference.paged_attention."""
    return _run("paged_attention", q_NHD, key_USGD, value_USGV, tables_BU, sequence_N, lengths_N, scale)


def in_one_call(op: str, x: Tensor) -> bool:
    """Return whether `op` on a whole layer has an implementation here, faster than its single operations."""
    implementation = pick(op, x.device.type, x.dtype, not torch.is_grad_enabled())
    return implementation is not getattr(reference_layers, op)


def route(logits_NE: Tensor, router: RouterWeights, experts_NK: Tensor | None = None) -> Routing:
    """See reference.route."""
    return _run("route", logits_NE, router, experts_NK)


def latent_attention_layer(
    x_ND: Tensor,
    weights: LatentAttentionWeights,
    latent_USC: Tensor,
    k_rope_USR: Tensor,
    rows: PagedRows,
    cos_NA: Tensor,
    sin_NA: Tensor,
    interleave: bool,
) -> Tensor:
    """See reference_layers.latent_attention_layer."""
    rest = (latent_USC, k_rope_USR, rows, cos_NA, sin_NA, interleave)
    return _run("latent_attention_layer", x_ND, weights, *rest)


def grouped_attention_layer(
    x_ND: Tensor,
    weights: GroupedAttentionWeights,
    key_USGD: Tensor,
    value_USGD: Tensor,
    rows: PagedRows,
    cos_NA: Tensor,
    sin_NA: Tensor,
    interleave: bool,
) -> Tensor:
    """See reference_layers.grouped_attention_layer."""
    rest = (key_USGD, value_USGD, rows, cos_NA, sin_NA, interleave)
    return _run("grouped_attention_layer", x_ND, weights, *rest)


def feed_forward_layer(x_ND: Tensor, weights: FeedForwardWeights) -> FeedForwardResult:
    """See reference_layers.feed_forward_layer."""
    return _run("feed_forward_layer", x_ND, weights)


def linear_cross_entropy(
    hidden_ND: Tensor,
    weight_WD: Tensor,
    targets_N: Tensor,
    weights_N: Tensor,
    *,
    rows_at_once: int = 512,
    in_bf16: bool = False,
) -> tuple[Tensor, Tensor]:
    """Cross-entropy of hidden @ weight^T, computed without holding all logits at once.

    Returns (sum of weights * nll, nll (N,) without gradient), both float32. Negative targets are ignored.
    The gradients are computed in the forward pass, `rows_at_once` rows of logits at a time; all products
    `in_bf16` are those of `product_bf16`.
    """
    in_bf16 = in_bf16 and hidden_ND.dtype == torch.float32
    loss, nll_N = _LinearCrossEntropy.apply(hidden_ND, weight_WD, targets_N, weights_N, rows_at_once, in_bf16)
    return loss, nll_N


def token_logprobs(
    hidden_ND: Tensor, weight_WD: Tensor, targets_N: Tensor, *, rows_at_once: int = 512
) -> Tensor:
    """Log-probabilities (N,) of the targets under softmax(hidden @ weight^T), float32, with gradient.

    For losses that are any function of them. The logits are never held all at once; the backward pass
    computes them again. An ignored (negative) target has 0.
    """
    return _TokenLogprobs.apply(hidden_ND, weight_WD, targets_N, rows_at_once)


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden_ND: Tensor,
        weight_WD: Tensor,
        targets_N: Tensor,
        weights_N: Tensor,
        rows: int,
        in_bf16: bool,
    ) -> tuple[Tensor, Tensor]:
        grad_weights_N = weights_N if any(ctx.needs_input_grad[:2]) else None
        nll_N, d_hidden, d_weight = _head_nll(
            hidden_ND,
            weight_WD,
            targets_N,
            grad_weights_N,
            rows,
            is_frozen=not ctx.needs_input_grad[1],
            in_bf16=in_bf16,
        )
        ctx.save_for_backward(d_hidden, d_weight)
        ctx.mark_non_differentiable(nll_N)
        return (nll_N * weights_N).sum(), nll_N

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_loss: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        d_hidden, d_weight = ctx.saved_tensors
        d_hidden = d_hidden * d_loss.to(d_hidden.dtype)
        d_weight = None if d_weight is None else d_weight * d_loss.to(d_weight.dtype)
        return d_hidden, d_weight, None, None, None, None


class _TokenLogprobs(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden_ND: Tensor, weight_WD: Tensor, targets_N: Tensor, rows: int) -> Tensor:
        ctx.save_for_backward(hidden_ND, weight_WD, targets_N)
        ctx.rows = rows
        return -_head_nll(hidden_ND, weight_WD, targets_N, None, rows)[0]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_logp_N: Tensor) -> tuple[Tensor | None, ...]:
        hidden_ND, weight_WD, targets_N = ctx.saved_tensors
        _, d_hidden, d_weight = _head_nll(
            hidden_ND, weight_WD, targets_N, -d_logp_N, ctx.rows, is_frozen=not ctx.needs_input_grad[1]
        )
        return d_hidden, d_weight, None, None


def _head_nll(
    hidden_ND: Tensor,
    weight_WD: Tensor,
    targets_N: Tensor,
    weights_N: Tensor | None,
    rows: int,
    *,
    is_frozen: bool = False,
    in_bf16: bool = False,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """nll (N,) and, with weights, the gradients of sum(weights * nll) by hidden and weight, if not frozen."""
    weight = weight_WD.to(hidden_ND.dtype)
    nll_N = hidden_ND.new_empty(hidden_ND.shape[0], dtype=torch.float32)
    d_hidden = None if weights_N is None else torch.empty_like(hidden_ND)
    d_weight = None if weights_N is None or is_frozen else torch.zeros_like(weight_WD)
    for part in range(0, hidden_ND.shape[0], rows):
        span = slice(part, part + rows)
        logits = product_bf16(hidden_ND[span], weight.T) if in_bf16 else hidden_ND[span] @ weight.T
        nll_N[span] = cross_entropy_rows(
            logits, targets_N[span], None if weights_N is None else weights_N[span]
        )
        if d_hidden is not None and in_bf16:
            d_hidden[span] = product_bf16(logits, weight)
        elif d_hidden is not None:
            torch.mm(logits, weight, out=d_hidden[span])
        if d_weight is not None and in_bf16:
            d_weight += product_bf16(logits.T, hidden_ND[span])
        elif d_weight is not None:
            d_weight.addmm_(logits.T.to(d_weight.dtype), hidden_ND[span].to(d_weight.dtype))
    return nll_N, d_hidden, d_weight
