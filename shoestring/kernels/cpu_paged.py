"""Attention over pages on a CPU, for inference: no row depends on the rest of the batch."""

import torch
from torch import Tensor

from shoestring.kernels.cpu_call import call

LONGEST_PAGE = 64
"""Tokens of the longest page that paged.cpp can hold."""


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
    assert latent_USC.shape[1] <= LONGEST_PAGE
    q_latent_NHC, q_rope_NHR = q_latent_NHC.contiguous(), q_rope_NHR.contiguous()
    out_NHC = torch.empty_like(q_latent_NHC)
    sizes = (*q_latent_NHC.shape, k_rope_USR.shape[2], latent_USC.shape[1], tables_BU.shape[1])
    where = _indices(tables_BU, sequence_N, lengths_N)
    call(
        "paged_latent",
        *sizes,
        q_latent_NHC,
        q_rope_NHR,
        latent_USC,
        k_rope_USR,
        *where,
        float(scale),
        out_NHC,
    )
    return out_NHC


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
    assert key_USGD.shape[1] <= LONGEST_PAGE
    q_NHD = q_NHD.contiguous()
    _, page_size, key_heads, value_width = value_USGV.shape
    out_NHV = q_NHD.new_empty(*q_NHD.shape[:2], value_width)
    widths = (key_heads, q_NHD.shape[2], value_width, page_size, tables_BU.shape[1])
    where = _indices(tables_BU, sequence_N, lengths_N)
    call("paged_heads", *q_NHD.shape[:2], *widths, q_NHD, key_USGD, value_USGV, *where, float(scale), out_NHV)
    return out_NHV


def _indices(*tensors: Tensor) -> list[Tensor]:
    return [tensor.to(torch.int32).contiguous() for tensor in tensors]
