"""Operations on whole layers of packed weights, composed from reference.py: the specification."""

import torch
from torch import Tensor

from shoestring.kernels.layer_weights import (
    ExpertWeights,
    FeedForwardResult,
    FeedForwardWeights,
    GroupedAttentionWeights,
    LatentAttentionWeights,
    MatrixWeights,
    NormWeights,
    PagedRows,
)
from shoestring.kernels.reference import (
    linear,
    packed_experts,
    packed_linear,
    packed_linear_stack,
    paged_attention,
    paged_latent_attention,
    rms_norm,
    rotate,
    route,
)


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
    """x + MLA(norm(x)) over pages, absorbed; writes each row's latent and rotary key into its slot."""
    w, rank = weights, weights.up_key.weight.outputs
    normed_ND = _norm(x_ND, w.norm)
    small = normed_ND if w.q_a is None or w.q_norm is None else _norm(_matrix(normed_ND, w.q_a), w.q_norm)
    q_NHD = _matrix(small, w.q_b).unflatten(-1, (len(w.up_key.weight.blocks), -1))
    q_NHD = rotate(q_NHD, cos_NA, sin_NA, interleave)
    latent_NC, k_rope_NR = _matrix(normed_ND, w.kv_a).tensor_split([rank], -1)
    latent_USC.flatten(0, 1).index_copy_(0, rows.slot_N, _norm(latent_NC, w.kv_norm))
    k_rope_NR = rotate(k_rope_NR[:, None], cos_NA, sin_NA, interleave)[:, 0]
    k_rope_USR.flatten(0, 1).index_copy_(0, rows.slot_N, k_rope_NR)
    q_nope_NHP, q_rope_NHR = q_NHD.tensor_split([w.up_key.weight.depth], -1)
    q_latent_NHC = packed_linear_stack(q_nope_NHP, w.up_key.weight)
    where = (rows.tables_BU, rows.sequence_N, rows.lengths_N, w.scale)
    mixed_NHC = paged_latent_attention(q_latent_NHC, q_rope_NHR, latent_USC, k_rope_USR, *where)
    return x_ND + _matrix(packed_linear_stack(mixed_NHC, w.up_value.weight).flatten(1), w.out)


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
    """x + GQA(norm(x)) over pages; writes each row's keys and values into its slot."""
    normed_ND = _norm(x_ND, weights.norm)
    q_NHD, k_NGD, v_NGD = (
        _matrix(normed_ND, m).unflatten(-1, (-1, weights.width)) for m in (weights.q, weights.k, weights.v)
    )
    if weights.q_norm is not None and weights.k_norm is not None:
        q_NHD, k_NGD = _norm(q_NHD, weights.q_norm), _norm(k_NGD, weights.k_norm)
    key_USGD.flatten(0, 1).index_copy_(0, rows.slot_N, rotate(k_NGD, cos_NA, sin_NA, interleave))
    value_USGD.flatten(0, 1).index_copy_(0, rows.slot_N, v_NGD)
    where = (rows.tables_BU, rows.sequence_N, rows.lengths_N, weights.scale)
    mixed_NHD = paged_attention(rotate(q_NHD, cos_NA, sin_NA, interleave), key_USGD, value_USGD, *where)
    return x_ND + _matrix(mixed_NHD.flatten(1), weights.out)


def feed_forward_layer(x_ND: Tensor, weights: FeedForwardWeights) -> FeedForwardResult:
    """x + the feed-forward of norm(x): routed experts, one expert for every token, or both."""
    normed_ND, routing, outs = _norm(x_ND, weights.norm), None, []
    if weights.router is not None and weights.experts is not None:
        routing = route(linear(normed_ND, weights.router.weight_ED), weights.router)
        outs.append(_experts(normed_ND, routing.experts_NK, routing.weights_NK, weights.experts))
    if weights.shared_expert is not None:
        first_N1 = torch.zeros(len(x_ND), 1, dtype=torch.int64, device=x_ND.device)
        gates_N1 = torch.ones(len(x_ND), 1, device=x_ND.device)
        outs.append(_experts(normed_ND, first_N1, gates_N1, weights.shared_expert))
    return FeedForwardResult(x_ND + (outs[0] if len(outs) == 1 else outs[0] + outs[1]), routing)


def _norm(x: Tensor, norm: NormWeights) -> Tensor:
    return rms_norm(x, norm.weight_D, norm.eps)


def _matrix(x: Tensor, matrix: MatrixWeights) -> Tensor:
    return packed_linear(x, matrix.weight, matrix.bias_F)


def _experts(x_ND: Tensor, experts_NK: Tensor, weights_NK: Tensor, experts: ExpertWeights) -> Tensor:
    return packed_experts(x_ND, experts_NK, weights_NK, experts.gate_up, experts.down)
