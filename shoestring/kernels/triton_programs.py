"""The GPU programs in Triton's language: attention over pages, grouped products, packed weights."""

# The only file that imports Triton; its decorators need it at import, so import this file lazily.
# Functions under @triton.jit are compiled for the GPU and only look like Python:
# mypy: ignore-errors
# Suffixes are the legend's (model/__init__.py); sizes of tiles come from triton_call's tuples.

import triton
import triton.language as tl


@triton.jit
def _load(base, rows, real, first, width: tl.constexpr, block: tl.constexpr):
    """Columns [first, first + block) of some rows of a matrix (any, width); zeros outside it."""
    columns = first + tl.arange(0, block)
    places = base + rows.to(tl.int64)[:, None] * width + columns[None, :]
    return tl.load(places, mask=real[:, None] & (columns < width)[None, :], other=0.0)


@triton.jit
def _store(base, rows, real, first, values, width: tl.constexpr, block: tl.constexpr):
    """The reverse of `_load`, in the precision that `base` points to."""
    columns = first + tl.arange(0, block)
    places = base + rows.to(tl.int64)[:, None] * width + columns[None, :]
    tl.store(places, values.to(base.dtype.element_ty), mask=real[:, None] & (columns < width)[None, :])


@triton.jit
def _keys(where, row, start, length, tile: tl.constexpr):
    """Places of a block of a row's keys, in tokens from page 0's start, and whether the row sees them."""
    positions_S = start + tl.arange(0, tile.block_keys)
    seen_S = positions_S < length
    table = where.tables + tl.load(where.sequence + row) * where.width
    pages_S = tl.load(table + positions_S // tile.page_size, mask=seen_S, other=0).to(tl.int64)
    return pages_S * tile.page_size + positions_S % tile.page_size, seen_S


@triton.jit
def _fold(state, scores_XS, seen_S, scale, values_SV):
    """Online softmax (arXiv 2205.14135): update the largest score, the sum of exponentials and the mix."""
    largest_X, total_X, mixed_XV = state
    scores_XS = tl.where(seen_S[None, :], scores_XS * scale, float("-inf"))
    new_X = tl.maximum(largest_X, tl.max(scores_XS, 1))
    share_XS, keep_X = tl.exp(scores_XS - new_X[:, None]), tl.exp(largest_X - new_X)
    mixed_XV = mixed_XV * keep_X[:, None]
    mixed_XV = tl.dot(share_XS.to(values_SV.dtype), values_SV, mixed_XV, input_precision="ieee")
    return new_X, total_X * keep_X + tl.sum(share_XS, 1), mixed_XV


@triton.jit
def _start(rows: tl.constexpr, width: tl.constexpr):
    """The state of `_fold` before any key."""
    nothing_X = tl.full((rows,), float("-inf"), tl.float32)
    return nothing_X, tl.zeros((rows,), tl.float32), tl.zeros((rows, width), tl.float32)


@triton.jit
def _finish(out, sums, state, rows_X, real_X, width: tl.constexpr, block: tl.constexpr):
    """Store a span's mix and the logarithm of its sum of exponentials, the span's weight."""
    largest_X, total_X, mixed_XV = state
    span, spans = tl.program_id(2), tl.num_programs(2)
    places_X = rows_X.to(tl.int64) * spans + span
    _store(out, places_X, real_X, 0, mixed_XV / total_X[:, None], width, block)
    tl.store(sums + places_X, largest_X + tl.log(total_X), mask=real_X)


@triton.jit
def paged_latent(out, sums, queries, entries, where, scale, tile: tl.constexpr):
    """Grid (rows, blocks of heads, spans of keys): absorbed MLA, whose latents are keys and values."""
    q_latent, q_rope = queries
    latent, k_rope = entries
    row, first = tl.program_id(0), tl.program_id(2) * tile.span
    length = tl.load(where.lengths + row)
    if first >= length:
        return
    heads_X = tl.program_id(1) * tile.block_heads + tl.arange(0, tile.block_heads)
    real_X, rows_X = heads_X < tile.heads, row * tile.heads + heads_X
    q_XC = _load(q_latent, rows_X, real_X, 0, tile.width, tile.block_width)
    q_XR = _load(q_rope, rows_X, real_X, 0, tile.extra_width, tile.block_extra)
    state = _start(tile.block_heads, tile.block_width)
    for start in range(first, min(first + tile.span, length), tile.block_keys):
        places_S, seen_S = _keys(where, row, start, length, tile)
        latent_SC = _load(latent, places_S, seen_S, 0, tile.width, tile.block_width)
        k_SR = _load(k_rope, places_S, seen_S, 0, tile.extra_width, tile.block_extra)
        scores_XS = tl.dot(q_XC, tl.trans(latent_SC), input_precision="ieee")
        scores_XS = tl.dot(q_XR, tl.trans(k_SR), scores_XS, input_precision="ieee")
        state = _fold(state, scores_XS, seen_S, scale, latent_SC)
    _finish(out, sums, state, rows_X, real_X, tile.width, tile.block_width)


@triton.jit
def paged_heads(out, sums, queries, entries, where, scale, tile: tl.constexpr):
    """Grid (rows, key heads x blocks of their query heads, spans of keys): grouped-query attention."""
    key, value = entries
    row, first = tl.program_id(0), tl.program_id(2) * tile.span
    length = tl.load(where.lengths + row)
    if first >= length:
        return
    group_size: tl.constexpr = tile.heads // tile.key_heads
    blocks: tl.constexpr = (group_size + tile.block_heads - 1) // tile.block_heads
    key_head = tl.program_id(1) // blocks
    heads_X = tl.program_id(1) % blocks * tile.block_heads + tl.arange(0, tile.block_heads)
    real_X, rows_X = heads_X < group_size, row * tile.heads + key_head * group_size + heads_X
    q_XD = _load(queries[0], rows_X, real_X, 0, tile.width, tile.block_width)
    state = _start(tile.block_heads, tile.block_extra)
    for start in range(first, min(first + tile.span, length), tile.block_keys):
        places_S, seen_S = _keys(where, row, start, length, tile)
        places_S = places_S * tile.key_heads + key_head
        k_SD = _load(key, places_S, seen_S, 0, tile.width, tile.block_width)
        v_SV = _load(value, places_S, seen_S, 0, tile.extra_width, tile.block_extra)
        scores_XS = tl.dot(q_XD, tl.trans(k_SD), input_precision="ieee")
        state = _fold(state, scores_XS, seen_S, scale, v_SV)
    _finish(out, sums, state, rows_X, real_X, tile.extra_width, tile.block_extra)


@triton.jit
def join_spans(
    out, mixes, sums, lengths, spans, width: tl.constexpr, block: tl.constexpr, span: tl.constexpr
):
    """Grid (rows, heads): one head's mix over all its keys, from the mixes of its spans (flash decoding)."""
    row = tl.program_id(0)
    head = (row * tl.num_programs(1) + tl.program_id(1)).to(tl.int64)
    columns_V = tl.arange(0, block)
    largest, total, joined_V = float("-inf"), 0.0, tl.zeros((block,), tl.float32)
    for index in range(0, tl.cdiv(tl.load(lengths + row), span)):
        place = head * spans + index
        weight = tl.load(sums + place)
        new = tl.maximum(largest, weight)
        keep, share = tl.exp(largest - new), tl.exp(weight - new)
        mixed_V = tl.load(mixes + place * width + columns_V, mask=columns_V < width, other=0.0)
        joined_V = joined_V * keep + mixed_V * share
        largest, total = new, total * keep + share
    places_V = out + head * width + columns_V
    tl.store(places_V, (joined_V / total).to(out.dtype.element_ty), mask=columns_V < width)


@triton.jit
def _assigned(ends, index, tile: tl.constexpr):
    """The expert of row block `index`, and its rows [first, end); a block has rows of one expert only."""
    experts_E = tl.arange(0, tile.block_experts)
    ends_E = tl.load(ends + experts_E, mask=experts_E < tile.experts, other=0)
    starts_E = tl.load(ends + experts_E - 1, mask=(experts_E > 0) & (experts_E < tile.experts), other=0)
    blocks_E = (ends_E - starts_E + tile.block_rows - 1) // tile.block_rows
    last_E = tl.cumsum(blocks_E, 0)
    expert = tl.sum((last_E <= index).to(tl.int32), 0)
    mine_E = experts_E == expert
    blocks_before = tl.sum(tl.where(mine_E, last_E - blocks_E, 0), 0)
    first = tl.sum(tl.where(mine_E, starts_E, 0), 0) + (index - blocks_before) * tile.block_rows
    return expert, first, tl.sum(tl.where(mine_E, ends_E, 0), 0)


@triton.jit
def _unpacked(blocks, rows_F, real_F, start, tile: tl.constexpr):
    """Weights (F, D) that packed integers stand for; kernels/cpu/packed.h describes the order in a block.

    A 32-bit word holds 2 inputs of each of two neighboring outputs (int8), or 8 inputs of one (4-bit).
    """
    words, halves = blocks
    group: tl.constexpr = 32
    depths: tl.constexpr = 2 if tile.bits == 8 else 8  # of one output in a word
    chunks: tl.constexpr = group // depths
    body: tl.constexpr = 16 * tile.bits  # words of a block, before 16 halves with the scales
    groups: tl.constexpr = tile.depth // group
    groups_G = start // group + tl.arange(0, tile.block_depth // group)
    blocks_FG = (rows_F.to(tl.int64) // 16)[:, None] * groups + groups_G[None, :]
    real_FG = real_F[:, None] & (groups_G < groups)[None, :]
    chunks_Q = tl.arange(0, chunks)
    inside_F = rows_F % 16 // 2 if tile.bits == 8 else rows_F % 16 // 8 * (8 * chunks) + rows_F % 8
    words_FGQ = blocks_FG[:, :, None] * (body + 8) + inside_F[:, None, None] + 8 * chunks_Q[None, None, :]
    words_FGQ = tl.load(words + words_FGQ, mask=real_FG[:, :, None], other=0)
    half_FG = blocks_FG * (2 * body + 16) + 2 * body + (rows_F % 16)[:, None]
    half_FG = tl.load(halves + half_FG, mask=real_FG, other=0)
    depth_J = tl.arange(0, depths)
    if tile.bits == 8:
        shift_FJ = (rows_F % 2 * 16)[:, None] + (8 * depth_J)[None, :]
        integers = (words_FGQ[:, :, :, None] >> shift_FJ[:, None, None, :]).to(tl.int8).to(tl.float32)
        scale_FG = half_FG.to(tl.float16, bitcast=True).to(tl.float32)
    else:  # the low halves of a word's four bytes, then their high halves
        shift_J = depth_J % 4 * 8 + depth_J // 4 * 4
        integers = ((words_FGQ[:, :, :, None] >> shift_J[None, None, None, :]) & 15).to(tl.float32)
        integers -= (half_FG & 63).to(tl.float32)[:, :, None, None] / 4  # the zero
        scale_FG = (((half_FG.to(tl.int32) & 0xFFFF) << 12) + (106 << 23)).to(tl.float32, bitcast=True)
    weights = integers * scale_FG[:, :, None, None]
    outputs: tl.constexpr = tile.block_outputs
    depth: tl.constexpr = tile.block_depth
    return tl.reshape(weights, (outputs, depth))


@triton.jit
def grouped_product(out, x, weight, ends, tile: tl.constexpr):
    """Grid (row blocks, output blocks): rows sorted by expert times their expert's matrix, packed or not."""
    expert, first, end = _assigned(ends, tl.program_id(0), tile)
    if expert >= tile.experts:
        return
    rows_M = first + tl.arange(0, tile.block_rows)
    outputs_F = tl.program_id(1) * tile.block_outputs + tl.arange(0, tile.block_outputs)
    real_M, real_F = rows_M < end, outputs_F < tile.outputs
    rows: tl.constexpr = tile.block_rows
    columns: tl.constexpr = tile.block_outputs
    sum_MF = tl.zeros((rows, columns), tl.float32)
    for start in range(0, tile.depth, tile.block_depth):
        x_MD = _load(x, rows_M, real_M, start, tile.depth, tile.block_depth)
        if tile.bits == 0:
            rows_F = expert.to(tl.int64) * tile.outputs + outputs_F
            w_FD = _load(weight, rows_F, real_F, start, tile.depth, tile.block_depth)
        else:  # panels of 16 outputs, the last one filled up
            rows_F = expert.to(tl.int64) * ((tile.outputs + 15) // 16 * 16) + outputs_F
            w_FD = _unpacked(weight, rows_F, real_F, start, tile)
        sum_MF = tl.dot(x_MD, tl.trans(w_FD.to(x_MD.dtype)), sum_MF, input_precision="ieee")
    rows_M = rows_M.to(tl.int64)
    places_MF = out + rows_M[:, None] * tile.outputs + outputs_F[None, :]
    tl.store(places_MF, sum_MF.to(out.dtype.element_ty), mask=real_M[:, None] & real_F[None, :])
