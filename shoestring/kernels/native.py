"""PyTorch's own fused operators with our signatures: for GPUs, and for a CPU without a compiler."""

import torch
import torch.nn.functional as F
from torch import Tensor

from shoestring.kernels import reference
from shoestring.kernels.segments import in_segments, keys_and_values

GROUPED_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
GROUPED_ALIGNMENT_BYTES = 16


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """See reference.rms_norm."""
    return F.rms_norm(x, (x.shape[-1],), weight.to(x.dtype), eps)


def causal_attention(
    q_BTHD: Tensor, k_BTGD: Tensor, v_BTGV: Tensor, scale: float, segments_S2: Tensor | None = None
) -> Tensor:
    """See reference.causal_attention. Values are padded to the keys' width, as the fused kernels need."""
    if segments_S2 is not None:
        return in_segments(causal_attention, q_BTHD, k_BTGD, v_BTGV, scale, segments_S2)
    width, value_width = q_BTHD.shape[-1], v_BTGV.shape[-1]
    v_BTGD = F.pad(v_BTGV, (0, width - value_width)) if value_width < width else v_BTGV
    q, k, v = (x.transpose(1, 2) for x in (q_BTHD, k_BTGD, v_BTGD))
    is_gqa = q.shape[1] != k.shape[1]
    out = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale, enable_gqa=is_gqa)
    out_BTHV = out.transpose(1, 2)[..., :value_width]
    if q_BTHD.device.type == "cpu":
        # PyTorch's CPU kernel turns a row whose scores are all NaN into zeros. Each query sees its own key,
        # so adding 0 * (q + k) of the same token changes nothing, but passes NaN and infinity on.
        k_sum_BTH = k_BTGD.sum(-1).repeat_interleave(q_BTHD.shape[2] // k_BTGD.shape[2], dim=2)
        out_BTHV = out_BTHV + 0.0 * (q_BTHD.sum(-1) + k_sum_BTH)[..., None]
    return out_BTHV


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
    q = reference.rotate(q_BTHD.flatten(0, 1), cos_NA, sin_NA, interleave).view_as(q_BTHD)
    k_rope = reference.rotate(k_rope_BTR.flatten(0, 1)[:, None], cos_NA, sin_NA, interleave).view_as(
        k_rope_BTR
    )
    k, v = keys_and_values(kv_BTHU, k_rope, q.shape[-1] - k_rope.shape[-1])
    return causal_attention(q, k, v, scale, segments_S2)


def grouped_linear(x_ND: Tensor, weight_EFD: Tensor, ends_E: Tensor) -> Tensor:
    """See reference.grouped_linear, which also runs the sizes that torch's grouped product refuses.

    That product takes at least one row, of float32 or 16-bit numbers, with inputs and outputs in whole
    16-byte units.
    """
    units = GROUPED_ALIGNMENT_BYTES // x_ND.dtype.itemsize
    width, out_width = x_ND.shape[1], weight_EFD.shape[1]
    if x_ND.dtype not in GROUPED_DTYPES or width % units or out_width % units or not len(x_ND):
        return reference.grouped_linear(x_ND, weight_EFD.to(x_ND.dtype), ends_E)
    weight_EDF = weight_EFD.to(x_ND.dtype).transpose(-2, -1)
    out_NF = F.grouped_mm(x_ND.contiguous(), weight_EDF, offs=ends_E)
    if out_NF.requires_grad:
        out_NF.register_hook(Tensor.contiguous)  # an expanded gradient, such as sum's, would be refused
    return out_NF
