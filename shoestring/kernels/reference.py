"""Every operation in plain PyTorch: the specification that faster implementations are tested against."""

import hashlib
import struct
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from shoestring.kernels.layer_weights import RouterWeights, Routing
from shoestring.kernels.packed import Packed, unpack
from shoestring.kernels.segments import in_segments, keys_and_values

ONE_THREAD = 1 << 15
"""Values of a tensor up to which PyTorch computes an operation in one thread."""

QUINTIC = (3.4445, -4.7750, 2.0315)
"""Coefficients of Newton-Schulz's polynomial (Jordan et al. 2024)."""


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x (..., D) over its root mean square, times weight (D,); statistics in float32 (arXiv 1910.07467)."""
    x_float = x.float()
    unit = x_float * torch.rsqrt(x_float.square().mean(-1, keepdim=True) + eps)
    return unit.to(x.dtype) * weight.to(x.dtype)


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) * up, elementwise (arXiv 2002.05202)."""
    return F.silu(gate) * up


def swiglu_packed(gate_up: Tensor) -> Tensor:
    """swiglu of the two halves of the last dimension: (N, 2F) -> (N, F)."""
    gate, up = gate_up.chunk(2, dim=-1)
    return swiglu(gate, up)


def rotate(x_NHD: Tensor, cos_NA: Tensor, sin_NA: Tensor, interleave: bool) -> Tensor:
    """Rotate the last R = 2A of each head's D values by row n's A angles (arXiv 2104.09864).

    Pairs are neighbors (interleave=True, DeepSeek) or half a width apart (Llama, Qwen2).
    """
    width = 2 * cos_NA.shape[-1]
    nope, rope = x_NHD[..., : x_NHD.shape[-1] - width], x_NHD[..., x_NHD.shape[-1] - width :]
    cos, sin = cos_NA[:, None].to(x_NHD.dtype), sin_NA[:, None].to(x_NHD.dtype)
    if interleave:
        a, b = rope[..., 0::2], rope[..., 1::2]
        rope = torch.stack((a * cos - b * sin, b * cos + a * sin), dim=-1).flatten(-2)
    else:
        a, b = rope.chunk(2, dim=-1)
        rope = torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)
    return torch.cat((nope, rope), dim=-1)


def causal_attention(
    q_BTHD: Tensor, k_BTGD: Tensor, v_BTGV: Tensor, scale: float, segments_S2: Tensor | None = None
) -> Tensor:
    """softmax(scale q k^T, causal) v -> (B, T, H, V); each of the G key heads serves H / G query heads.

    `segments_S2` (int64) cut the T rows of one batch row, B = 1: a segment's length, and 1 if it goes on from
    the last segment that has a 0, whose rows it sees. So several answers share the rows of their prompt.
    """
    if segments_S2 is not None:
        return in_segments(causal_attention, q_BTHD, k_BTGD, v_BTGV, scale, segments_S2)
    group = q_BTHD.shape[2] // k_BTGD.shape[2]
    k_BTHD, v_BTHV = (x.repeat_interleave(group, dim=2) for x in (k_BTGD, v_BTGV))
    scores_BHTS = torch.einsum("bthd,bshd->bhts", q_BTHD, k_BTHD).float() * scale
    length = q_BTHD.shape[1]
    future = torch.ones(length, length, dtype=torch.bool, device=q_BTHD.device).triu(1)
    probability = scores_BHTS.masked_fill(future, float("-inf")).softmax(-1).to(q_BTHD.dtype)
    return torch.einsum("bhts,bshv->bthv", probability, v_BTHV)


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
    """`causal_attention` of MLA in training: kv holds every head's own part of its keys and its values.

    The rest of the keys, R wide and the same for all heads, is k_rope; it and the last R values of the
    queries are not rotated yet.
    """
    q = rotate(q_BTHD.flatten(0, 1), cos_NA, sin_NA, interleave).view_as(q_BTHD)
    k_rope = rotate(k_rope_BTR.flatten(0, 1)[:, None], cos_NA, sin_NA, interleave).view_as(k_rope_BTR)
    k, v = keys_and_values(kv_BTHU, k_rope, q.shape[-1] - k_rope.shape[-1])
    return causal_attention(q, k, v, scale, segments_S2)


def grouped_linear(x_ND: Tensor, weight_EFD: Tensor, ends_E: Tensor) -> Tensor:
    """Rows [ends[e-1], ends[e]) of x times weight[e] transposed -> (N, F); ends is int32 and rises to N."""
    starts = [0, *ends_E.tolist()]
    parts = [x_ND[a:b] @ w.to(x_ND.dtype).T for a, b, w in zip(starts, starts[1:], weight_EFD, strict=False)]
    return torch.cat(parts)


def route(logits_NE: Tensor, router: RouterWeights, experts_NK: Tensor | None = None) -> Routing:
    """Each token's K experts and their gates (V2 eq. 20-22, V3 eq. 12-16); or the gates of `experts_NK`.

    Without gradients, exponentials and sums are rounded from float64, the likeliest expert comes first, and
    of equal ones that of lower index: a row depends neither on other rows nor on the device. With gradients
    all is float32 and the experts come in no order, which is faster.
    """
    is_precise = not torch.is_grad_enabled()
    wide_NE = logits_NE.double() if is_precise else logits_NE
    scores_NE = (wide_NE.softmax(-1) if router.softmax else _sigmoid(wide_NE)).float()
    if experts_NK is None:
        experts_NK = _choose_experts(scores_NE.detach(), router)
    weights_NK = scores_NE.gather(1, experts_NK)
    if router.normalize:
        sum_N1 = (weights_NK.double() if is_precise else weights_NK).sum(-1, keepdim=True).float()
        weights_NK = weights_NK / (sum_N1 + 1e-20)
    return Routing(experts_NK, weights_NK * router.scaling, scores_NE)


def _sigmoid(x_NE: Tensor) -> Tensor:
    """Sigmoid whose bits do not depend on the number of threads.

    PyTorch gives each thread a part of a larger tensor, and computes the part's end by another routine.
    """
    if x_NE.device.type != "cpu":
        return x_NE.sigmoid()
    rows = max(ONE_THREAD // x_NE.shape[1], 1)
    return torch.cat([part_XE.sigmoid() for part_XE in x_NE.split(rows)])


def _choose_experts(scores_NE: Tensor, router: RouterWeights) -> Tensor:
    """Indices (N, K). A group of experts is worth its best one (V2), or with a bias its best two (V3)."""
    choice_NE = scores_NE if router.bias_E is None else scores_NE + router.bias_E
    if router.top_groups < router.groups:
        grouped_NGX = choice_NE.unflatten(1, (router.groups, -1))
        is_biased = router.bias_E is not None
        worth_NG = grouped_NGX.topk(2, dim=-1).values.sum(-1) if is_biased else grouped_NGX.amax(-1)
        barred_NG = torch.ones_like(worth_NG, dtype=torch.bool)
        barred_NG.scatter_(1, _largest(worth_NG, router.top_groups), False)
        # V3's biased scores may be negative, so a barred expert must lose to every number.
        lowest = float("-inf") if is_biased else 0.0
        choice_NE = grouped_NGX.masked_fill(barred_NG[..., None], lowest).flatten(1)
    return _largest(choice_NE, router.per_token)


def _largest(values: Tensor, count: int) -> Tensor:
    """Indices of the largest values of each row, in the order that `route` promises."""
    if torch.is_grad_enabled():
        return values.topk(count, dim=-1, sorted=False).indices
    return values.sort(dim=-1, descending=True, stable=True).indices[..., :count]


def dispatch(tokens_ND: Tensor, positions_NK: Tensor) -> Tensor:
    """Copy token n to each row positions[n, k]: (N, D) -> (M, D); positions permute M = N * K rows."""
    num_copies = positions_NK.shape[1]
    return tokens_ND[positions_NK.flatten().argsort() // num_copies]


def combine(rows_MD: Tensor, positions_NK: Tensor, weights_NK: Tensor) -> Tensor:
    """Each token's sum over k of weights[n, k] * rows[positions[n, k]] -> (N, D)."""
    return (rows_MD[positions_NK] * weights_NK[..., None].to(rows_MD.dtype)).sum(1)


def cross_entropy_rows(logits_NW: Tensor, targets_N: Tensor, weights_N: Tensor | None) -> Tensor:
    """Negative log-likelihood of each row's target, float32; 0 for an ignored one (negative).

    Overwrites the logits: with weights, by their gradient weights[n] * (softmax - one_hot).
    """
    total_N = logits_NW.float().logsumexp(-1)
    logp_NW = logits_NW.float() - total_N[:, None]
    is_target_N = targets_N >= 0
    target_N1 = targets_N.clamp(min=0)[:, None]
    nll_N = torch.where(is_target_N, -logp_NW.gather(1, target_N1)[:, 0], 0.0 * total_N)  # NaN stays NaN
    if weights_N is not None:
        grad_NW = logp_NW.exp_()
        grad_NW.scatter_add_(1, target_N1, -torch.ones_like(target_N1, dtype=grad_NW.dtype))
        logits_NW.copy_(grad_NW * (weights_N * is_target_N)[:, None])
    return nll_N


def sample_tokens(logits_NW: Tensor, temperature_N: Tensor, number_N: Tensor) -> tuple[Tensor, Tensor]:
    """A token for each row, and its log-probability at temperature 1.

    It is the likeliest, the first of equals, where the temperature is 0, else the one that the row's number
    from 0 to 1 draws by the cumulated probabilities; -1 where the largest logit is not finite. Temperatures
    and numbers are float64.
    """
    best_N, ids_N = logits_NW.max(-1)
    is_drawn = temperature_N > 0
    scaled_NW = logits_NW.double() / torch.where(is_drawn, temperature_N, 1.0)[:, None]
    cumulated_NW = scaled_NW.softmax(-1).cumsum(-1)
    total_N = cumulated_NW[:, -1]
    target_N = torch.minimum(number_N * total_N, torch.nextafter(total_N, torch.zeros_like(total_N)))
    drawn_N = torch.searchsorted(cumulated_NW, target_N[:, None], right=True)[:, 0]
    ids_N = torch.where(is_drawn, drawn_N, ids_N).where(best_N.isfinite(), -1)
    logp_NW = logits_NW.float().log_softmax(-1)
    return ids_N, logp_NW.gather(1, ids_N.clamp(min=0)[:, None])[:, 0].where(ids_N >= 0, 0.0)


def uniform_numbers(seed_N: Tensor, index_N: Tensor) -> Tensor:
    """Numbers from 0 to 1 in float64, each a hash (BLAKE2b) of a seed and an index, which are int64."""
    pairs = zip(seed_N.tolist(), index_N.tolist(), strict=True)
    digests = [hashlib.blake2b(struct.pack("<qq", *pair), digest_size=8).digest() for pair in pairs]
    numbers = [(int.from_bytes(digest, "little") >> 11) * 2.0**-53 for digest in digests]
    return torch.tensor(numbers, dtype=torch.float64)


def newton_schulz(x_EFD: Tensor, steps: int) -> Tensor:
    """Matrices with x's singular vectors and singular values of 0.7 to 1.2; x's are 1 at most, and F <= D.

    The quintic a x + (b g + c g^2) x, g = x x^T, of Jordan et al. 2024, which is steepest at zero.
    """
    a, b, c = QUINTIC
    for _ in range(steps):
        gram_EFF = x_EFD @ x_EFD.mT
        polynomial_EFF = torch.baddbmm(gram_EFF, gram_EFF, gram_EFF, beta=b, alpha=c)
        x_EFD = torch.baddbmm(x_EFD, polynomial_EFF, x_EFD, beta=a)
    return x_EFD


def newton_schulz_bf16(x_EFD: Tensor, steps: int) -> Tensor:
    """`newton_schulz` whose products are those of `product_bf16`."""
    a, b, c = QUINTIC
    for _ in range(steps):
        gram_EFF = _rounded(x_EFD) @ _rounded(x_EFD).mT
        polynomial_EFF = b * gram_EFF + c * (_rounded(gram_EFF) @ _rounded(gram_EFF))
        x_EFD = a * x_EFD + _rounded(polynomial_EFF) @ _rounded(x_EFD)
    return x_EFD


def linear(x: Tensor, weight_FD: Tensor, bias_F: Tensor | None = None) -> Tensor:
    """x (..., D) W^T + b, computed in x's precision."""
    return F.linear(x, weight_FD.to(x.dtype), None if bias_F is None else bias_F.to(x.dtype))


def product_bf16(a_MK: Tensor, b_KN: Tensor) -> Tensor:
    """a b of float32 matrices: factors are rounded to bfloat16, sums and result are float32."""
    return _rounded(a_MK) @ _rounded(b_KN)


def grouped_product_bf16(rows_MK: Tensor, matrices_EKN: Tensor, ends_E: Tensor) -> Tensor:
    """`product_bf16` of each expert's rows, as in `grouped_linear`, and its matrix -> (M, N)."""
    return grouped_linear(_rounded(rows_MK), _rounded(matrices_EKN).mT, ends_E)


def grouped_outer_bf16(left_MF: Tensor, right_MD: Tensor, ends_E: Tensor) -> Tensor:
    """`product_bf16` of each expert's left rows, transposed, and its right rows -> (E, F, D)."""
    starts, ends = [0, *ends_E.tolist()], ends_E.tolist()
    left, right = _rounded(left_MF), _rounded(right_MD)
    return torch.stack([left[a:b].T @ right[a:b] for a, b in zip(starts, ends, strict=False)])


def _rounded(x: Tensor) -> Tensor:
    return x.bfloat16().to(x.dtype)


def linear_stack(x_NHD: Tensor, weight_HFD: Tensor) -> Tensor:
    """Each head's matrix times its own row of every token: (N, H, D) -> (N, H, F)."""
    return torch.einsum("nhd,hfd->nhf", x_NHD, weight_HFD.to(x_NHD.dtype))


def packed_linear(x: Tensor, weight: Packed, bias_F: Tensor | None = None) -> Tensor:
    """`linear` with the weights that the integers stand for."""
    return linear(x, unpack(weight)[0], bias_F)


def packed_linear_stack(x_NHD: Tensor, weight: Packed) -> Tensor:
    """`linear_stack` with the weights that the integers stand for."""
    return linear_stack(x_NHD, unpack(weight))


def packed_experts(
    x_ND: Tensor, experts_NK: Tensor, weights_NK: Tensor, gate_up: Packed, down: Packed
) -> Tensor:
    """A token's K experts, weighted and summed (N, D): packed gate_up (E, 2F, D) and down (E, D, F)."""
    out_ND = torch.zeros_like(x_ND)
    for expert in experts_NK.unique().tolist():
        rows, places = (experts_NK == expert).nonzero(as_tuple=True)
        one = [Packed(p.bits, p.outputs, p.blocks[expert, None]) for p in (gate_up, down)]
        hidden = swiglu_packed(packed_linear(x_ND[rows], one[0], None))
        out_ND[rows] += weights_NK[rows, places, None].to(x_ND.dtype) * packed_linear(hidden, one[1], None)
    return out_ND


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
    """Absorbed MLA over pages: each token's softmax-weighted mix of latents -> (N, H, C) (V2 section 2.1.2).

    U pages hold S tokens each. Token n belongs to table row sequence[n] (int32 (B, U), pages in order of
    position) and sees its first lengths[n] keys; rows of one sequence are adjacent, in order of position.
    """
    out = []
    for rows, pages, lengths_T in _sequences(tables_BU, sequence_N, lengths_N, latent_USC.shape[1]):
        latent_SC, k_rope_SR = latent_USC[pages].flatten(0, 1), k_rope_USR[pages].flatten(0, 1)
        latent_SC, k_rope_SR = latent_SC[: int(lengths_T[-1])], k_rope_SR[: int(lengths_T[-1])]
        scores_THS = torch.einsum("thc,sc->ths", q_latent_NHC[rows], latent_SC)
        scores_THS = scores_THS + torch.einsum("thr,sr->ths", q_rope_NHR[rows], k_rope_SR)
        out.append(torch.einsum("ths,sc->thc", _seen_softmax(scores_THS, lengths_T, scale), latent_SC))
    return torch.cat(out)


def paged_attention(
    q_NHD: Tensor,
    key_USGD: Tensor,
    value_USGV: Tensor,
    tables_BU: Tensor,
    sequence_N: Tensor,
    lengths_N: Tensor,
    scale: float,
) -> Tensor:
    """Grouped-query attention over pages -> (N, H, V); pages and rows as in `paged_latent_attention`."""
    out, groups = [], key_USGD.shape[2]
    for rows, pages, lengths_T in _sequences(tables_BU, sequence_N, lengths_N, key_USGD.shape[1]):
        key_SGD, value_SGV = key_USGD[pages].flatten(0, 1), value_USGV[pages].flatten(0, 1)
        key_SGD, value_SGV = key_SGD[: int(lengths_T[-1])], value_SGV[: int(lengths_T[-1])]
        q_TGXD = q_NHD[rows].unflatten(1, (groups, -1))
        scores_THS = torch.einsum("tgxd,sgd->tgxs", q_TGXD, key_SGD).flatten(1, 2)
        probability = _seen_softmax(scores_THS, lengths_T, scale).unflatten(1, (groups, -1))
        out.append(torch.einsum("tgxs,sgv->tgxv", probability, value_SGV).flatten(1, 2))
    return torch.cat(out)


def _sequences(
    tables_BU: Tensor, sequence_N: Tensor, lengths_N: Tensor, page_size: int
) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Each sequence's rows, its pages up to its last key, and its rows' lengths."""
    owners, counts = torch.unique_consecutive(sequence_N, return_counts=True)
    start = 0
    for owner, count in zip(owners.tolist(), counts.tolist(), strict=True):
        rows = slice(start, start + count)
        num_pages = -(-int(lengths_N[start + count - 1]) // page_size)
        yield rows, tables_BU[owner, :num_pages].long(), lengths_N[rows]
        start += count


def _seen_softmax(scores_THS: Tensor, lengths_T: Tensor, scale: float) -> Tensor:
    """Softmax over the first lengths[t] keys, in float32 at least."""
    unseen_TS = torch.arange(scores_THS.shape[-1], device=scores_THS.device) >= lengths_T[:, None]
    precise = scores_THS.to(torch.promote_types(scores_THS.dtype, torch.float32)) * scale
    return precise.masked_fill(unseen_TS[:, None], float("-inf")).softmax(-1).to(scores_THS.dtype)
