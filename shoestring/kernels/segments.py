"""Attention of training by kernels that take padded rows and whole keys: of segments, and of latents."""

from collections.abc import Callable

import torch
from torch import Tensor


def in_segments(
    attention: Callable[..., Tensor],
    q_BTHD: Tensor,
    k_BTGD: Tensor,
    v_BTGV: Tensor,
    scale: float,
    segments_S2: Tensor,
) -> Tensor:
    """Causal attention of segments by one of padded rows: each behind the segment that it goes on from."""
    rows, places, start, prompt = [], [], 0, range(0)
    for count, goes_on in segments_S2.tolist():
        own = range(start, start + count)
        rows.append([*(prompt if goes_on else ()), *own])
        places.append((len(rows[-1]) - count, len(rows[-1])))
        start, prompt = start + count, prompt if goes_on else own
    width = max(map(len, rows))
    rows = [row + row[-1:] * (width - len(row)) for row in rows]  # its last row again: no other NaN gets in
    padded_ST = torch.tensor(rows, device=q_BTHD.device)
    out_STHV = attention(*(x[0][padded_ST] for x in (q_BTHD, k_BTGD, v_BTGV)), scale)
    parts = [out_THV[first:end] for out_THV, (first, end) in zip(out_STHV, places, strict=True)]
    return torch.cat(parts)[None]


def keys_and_values(kv_BTHU: Tensor, k_rope_BTR: Tensor, own: int) -> tuple[Tensor, Tensor]:
    """Every head's keys, `own` values and those that all heads share, and its values."""
    k_own_BTHP, v_BTHV = kv_BTHU.split([own, kv_BTHU.shape[-1] - own], dim=-1)
    k_rope_BTHR = k_rope_BTR[:, :, None].expand(-1, -1, kv_BTHU.shape[2], -1)
    return torch.cat((k_own_BTHP, k_rope_BTHR), dim=-1), v_BTHV
