"""PyTorch's own fused operators behind our signatures: the GPU's twins, and the CPU's when nothing can be compiled."""

import torch.nn.functional as F
from torch import Tensor


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """See reference.rms_norm."""
    return F.rms_norm(x, (x.shape[-1],), weight.to(x.dtype), eps)


def causal_attention(q_BTHD: Tensor, k_BTGD: Tensor, v_BTGV: Tensor, scale: float) -> Tensor:
    """See reference.causal_attention. Values are padded to the keys' width, which the fused kernels want."""
    width, value_width = q_BTHD.shape[-1], v_BTGV.shape[-1]
    padded = F.pad(v_BTGV, (0, width - value_width)) if value_width < width else v_BTGV
    q, k, v = (x.transpose(1, 2) for x in (q_BTHD, k_BTGD, padded))
    grouped = q.shape[1] != k.shape[1]
    out = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale, enable_gqa=grouped)
    return out.transpose(1, 2)[..., :value_width]


def grouped_linear(x_ND: Tensor, weight_EFD: Tensor, ends_E: Tensor) -> Tensor:
    """See reference.grouped_linear."""
    return F.grouped_mm(x_ND, weight_EFD.to(x_ND.dtype).transpose(-2, -1), offs=ends_E)
