"""Every operation in plain PyTorch: the specification that the fast twins are tested against."""

import torch
import torch.nn.functional as F
from torch import Tensor


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x (..., D) over its root mean square, times weight (D,); statistics in float32 (arXiv 1910.07467)."""
    x_float = x.float()
    scaled = x_float * torch.rsqrt(x_float.square().mean(-1, keepdim=True) + eps)
    return scaled.to(x.dtype) * weight.to(x.dtype)


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) * up, elementwise (arXiv 2002.05202)."""
    return F.silu(gate) * up


def swiglu_packed(gate_up: Tensor) -> Tensor:
    """swiglu of the two halves of the last dimension: (N, 2F) -> (N, F)."""
    gate, up = gate_up.chunk(2, dim=-1)
    return swiglu(gate, up)


def rotate(x_NHD: Tensor, cos_NR: Tensor, sin_NR: Tensor, interleave: bool) -> Tensor:
    """Rotate the last 2R of each head's D values by row n's R angles; the rest passes (arXiv 2104.09864).

    Pairs are neighbours (interleave=True, DeepSeek) or half a width apart (Llama, Qwen2).
    """
    width = 2 * cos_NR.shape[-1]
    plain, turned = x_NHD[..., : x_NHD.shape[-1] - width], x_NHD[..., x_NHD.shape[-1] - width :]
    cos, sin = cos_NR[:, None].to(x_NHD.dtype), sin_NR[:, None].to(x_NHD.dtype)
    if interleave:
        a, b = turned[..., 0::2], turned[..., 1::2]
        turned = torch.stack((a * cos - b * sin, b * cos + a * sin), dim=-1).flatten(-2)
    else:
        a, b = turned.chunk(2, dim=-1)
        turned = torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)
    return torch.cat((plain, turned), dim=-1)


def causal_attention(q_BTHD: Tensor, k_BTGD: Tensor, v_BTGV: Tensor, scale: float) -> Tensor:
    """softmax(scale q k^T, causal) v -> (B, T, H, V); each of the G key heads serves H / G query heads."""
    group = q_BTHD.shape[2] // k_BTGD.shape[2]
    k_BTHD, v_BTHV = (x.repeat_interleave(group, dim=2) for x in (k_BTGD, v_BTGV))
    scores_BHTS = torch.einsum("bthd,bshd->bhts", q_BTHD, k_BTHD).float() * scale
    length = q_BTHD.shape[1]
    future = torch.ones(length, length, dtype=torch.bool, device=q_BTHD.device).triu(1)
    probability = scores_BHTS.masked_fill(future, float("-inf")).softmax(-1).to(q_BTHD.dtype)
    return torch.einsum("bhts,bshv->bthv", probability, v_BTHV)


def grouped_linear(x_ND: Tensor, weight_EFD: Tensor, ends_E: Tensor) -> Tensor:
    """Rows [ends[e-1], ends[e]) of x times weight[e] transposed -> (N, F); ends is int32 and rises to N."""
    starts = [0, *ends_E.tolist()]
    parts = [x_ND[a:b] @ w.T for a, b, w in zip(starts, starts[1:], weight_EFD, strict=False)]
    return torch.cat(parts)


def dispatch(tokens_ND: Tensor, positions_NK: Tensor) -> Tensor:
    """Copy token n to each row positions[n, k]: (N, D) -> (N * K, D); positions permute all rows."""
    num_copies = positions_NK.shape[1]
    return tokens_ND[positions_NK.flatten().argsort() // num_copies]


def combine(rows_MD: Tensor, positions_NK: Tensor, weights_NK: Tensor) -> Tensor:
    """Each token's sum over k of weights[n, k] * rows[positions[n, k]] -> (N, D)."""
    return (rows_MD[positions_NK] * weights_NK[..., None].to(rows_MD.dtype)).sum(1)


def cross_entropy_rows(logits_NW: Tensor, targets_N: Tensor, weights_N: Tensor | None) -> Tensor:
    """Negative log-likelihood of each row's target, float32; a negative target gives 0. Destroys the logits.

    With weights, row n of the logits becomes its gradient: weights[n] * (softmax - one_hot).
    """
    total_N = logits_NW.float().logsumexp(-1)
    logp_NW = logits_NW.float() - total_N[:, None]
    known_N = targets_N >= 0
    target_N1 = targets_N.clamp(min=0)[:, None]
    nll_N = torch.where(known_N, -logp_NW.gather(1, target_N1)[:, 0], 0.0 * total_N)  # NaN stays NaN
    if weights_N is not None:
        grad_NW = logp_NW.exp_()
        grad_NW.scatter_add_(1, target_N1, -torch.ones_like(target_N1, dtype=grad_NW.dtype))
        logits_NW.copy_(grad_NW * (weights_N * known_N)[:, None])
    return nll_N
