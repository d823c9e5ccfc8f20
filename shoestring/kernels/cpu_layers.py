"""CPU twins of the operations on whole layers: one call, to the last bit what the calls it replaces give."""

import torch
from torch import Tensor

from shoestring.kernels.cpu_call import integers
from shoestring.kernels.cpu_paged import LONGEST_PAGE
from shoestring.kernels.layer_weights import (
    FeedForward,
    FeedForwardResult,
    GroupedAttention,
    LatentAttention,
    PagedRows,
    Routed,
    Router,
)


def route(logits_NE: Tensor, router: Router) -> Routed:
    """See reference_layers.route; of equal affinities the lower index wins."""
    logits_NE = logits_NE.contiguous()
    routed = _routed(logits_NE, router)
    pointers = (tensor.data_ptr() for tensor in (logits_NE, *_parts(routed)))
    integers("route", 6)(router.address, len(logits_NE), *pointers)
    return routed


def latent_attention_layer(
    x_ND: Tensor,
    weights: LatentAttention,
    latent_PSC: Tensor,
    k_rope_PSR: Tensor,
    rows: PagedRows,
    cos_NR: Tensor,
    sin_NR: Tensor,
    interleave: bool,
) -> Tensor:
    """See reference_layers.latent_attention_layer."""
    entries, turns = (latent_PSC, k_rope_PSR), (cos_NR, sin_NR)
    return _attention("latent_attention_layer", x_ND, weights, entries, rows, turns, interleave)


def grouped_attention_layer(
    x_ND: Tensor,
    weights: GroupedAttention,
    key_PSGD: Tensor,
    value_PSGD: Tensor,
    rows: PagedRows,
    cos_NR: Tensor,
    sin_NR: Tensor,
    interleave: bool,
) -> Tensor:
    """See reference_layers.grouped_attention_layer."""
    entries, turns = (key_PSGD, value_PSGD), (cos_NR, sin_NR)
    return _attention("grouped_attention_layer", x_ND, weights, entries, rows, turns, interleave)


def feed_forward_layer(x_ND: Tensor, weights: FeedForward) -> FeedForwardResult:
    """See reference_layers.feed_forward_layer."""
    x_ND = x_ND.contiguous()
    out_ND = torch.empty_like(x_ND)
    routed = None if weights.router is None else _routed(x_ND, weights.router)
    chosen = (0, 0, 0) if routed is None else (tensor.data_ptr() for tensor in _parts(routed))
    function = integers("feed_forward_layer", 7)
    function(weights.address, len(x_ND), x_ND.data_ptr(), *chosen, out_ND.data_ptr())
    return FeedForwardResult(out_ND, routed)


def _attention(
    name: str,
    x_ND: Tensor,
    weights: LatentAttention | GroupedAttention,
    entries: tuple[Tensor, Tensor],
    rows: PagedRows,
    turns: tuple[Tensor, Tensor],
    interleave: bool,
) -> Tensor:
    """Both kinds take the same arguments."""
    page_size, tables_BM = entries[0].shape[1], rows.tables_BM
    assert page_size <= LONGEST_PAGE
    x_ND = x_ND.contiguous()
    out_ND = torch.empty_like(x_ND)
    numbers = (weights.address, len(x_ND), page_size, tables_BM.shape[1], interleave)
    floats = (x_ND, *turns, *entries)
    indices = (tables_BM, rows.sequence_N, rows.lengths_N)
    assert rows.slot_N.dtype == torch.int64
    assert all(tensor.dtype == torch.float32 and tensor.is_contiguous() for tensor in floats)
    assert all(tensor.dtype == torch.int32 and tensor.is_contiguous() for tensor in indices)
    pointers = (tensor.data_ptr() for tensor in (*floats, rows.slot_N, *indices, out_ND))
    integers(name, 15)(*numbers, *pointers)
    return out_ND


def _routed(rows_N: Tensor, router: Router) -> Routed:
    """Room for the routing of N rows."""
    count, chosen = len(rows_N), router.per_token
    experts_NK = torch.empty(count, chosen, dtype=torch.int64)
    return Routed(experts_NK, torch.empty(count, chosen), torch.empty(count, router.experts))


def _parts(routed: Routed) -> tuple[Tensor, Tensor, Tensor]:
    return routed.experts_NK, routed.weights_NK, routed.scores_NE
