"""Whole layers in one call on a CPU, with the same bits as the calls that each replaces."""

import torch
from torch import Tensor

from shoestring.kernels import reference
from shoestring.kernels.cpu_call import integers, pointer
from shoestring.kernels.cpu_paged import LONGEST_PAGE
from shoestring.kernels.layer_weights import (
    FeedForwardResult,
    FeedForwardWeights,
    GroupedAttentionWeights,
    LatentAttentionWeights,
    PagedRows,
    RouterWeights,
    Routing,
)


def route(logits_NE: Tensor, router: RouterWeights, experts_NK: Tensor | None = None) -> Routing:
    """See reference.route."""
    if experts_NK is not None:
        return reference.route(logits_NE, router, experts_NK)
    logits_NE = logits_NE.contiguous()
    routing = _empty_routing(len(logits_NE), router)
    pointers = map(pointer, (logits_NE, *_parts(routing)))
    integers("route", 6)(router.address, len(logits_NE), *pointers)
    return routing


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
    entries, angles = (latent_USC, k_rope_USR), (cos_NA, sin_NA)
    return _attention("latent_attention_layer", x_ND, weights, entries, rows, angles, interleave)


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
    entries, angles = (key_USGD, value_USGD), (cos_NA, sin_NA)
    return _attention("grouped_attention_layer", x_ND, weights, entries, rows, angles, interleave)


def feed_forward_layer(x_ND: Tensor, weights: FeedForwardWeights) -> FeedForwardResult:
    """See reference_layers.feed_forward_layer."""
    x_ND = x_ND.contiguous()
    out_ND = torch.empty_like(x_ND)
    routing = None if weights.router is None else _empty_routing(len(x_ND), weights.router)
    parts = (0, 0, 0) if routing is None else map(pointer, _parts(routing))
    function = integers("feed_forward_layer", 7)
    function(weights.address, len(x_ND), pointer(x_ND), *parts, pointer(out_ND))
    return FeedForwardResult(out_ND, routing)


def _attention(
    name: str,
    x_ND: Tensor,
    weights: LatentAttentionWeights | GroupedAttentionWeights,
    entries: tuple[Tensor, Tensor],
    rows: PagedRows,
    angles: tuple[Tensor, Tensor],
    interleave: bool,
) -> Tensor:
    """Either kind of attention: the C functions take the same arguments."""
    page_size, tables_BU = entries[0].shape[1], rows.tables_BU
    assert page_size <= LONGEST_PAGE
    x_ND = x_ND.contiguous()
    out_ND = torch.empty_like(x_ND)
    numbers = (weights.address, len(x_ND), page_size, tables_BU.shape[1], interleave)
    floats = (x_ND, *angles, *entries)
    indices = (tables_BU, rows.sequence_N, rows.lengths_N)
    assert rows.slot_N.dtype == torch.int64
    assert all(tensor.dtype == torch.float32 and tensor.is_contiguous() for tensor in floats)
    assert all(tensor.dtype == torch.int32 and tensor.is_contiguous() for tensor in indices)
    pointers = map(pointer, (*floats, rows.slot_N, *indices, out_ND))
    integers(name, 15)(*numbers, *pointers)
    return out_ND


def _empty_routing(count: int, router: RouterWeights) -> Routing:
    """Memory for the routing of `count` rows."""
    experts_NK = torch.empty(count, router.per_token, dtype=torch.int64)
    return Routing(experts_NK, torch.empty(experts_NK.shape), torch.empty(count, router.experts))


def _parts(routing: Routing) -> tuple[Tensor, Tensor, Tensor]:
    return routing.experts_NK, routing.weights_NK, routing.scores_NE
