"""Attention over pages on a GPU: each program reads one span of one row's keys (flash decoding)."""

import torch
from torch import Tensor

from shoestring.kernels.triton_call import AttentionTile, Where, block, launch

SPAN = 256
"""Keys per program: a fixed number, so that a row's sum is split in the same way in every batch."""
TILE_BYTES = 32_768
"""Keys or values that a program holds at once; with the queries, twice that fits the 99 KB of an 8.6 GPU."""
WIDE_HEADS = 32
"""Query heads that share a read when there are more than 16; in float32 at most 16 fit."""
PARTIAL_BYTES = 256 * 2**20
"""Limit of the memory for the results of spans; further rows run afterwards."""


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
    _, heads, width = q_latent_NHC.shape
    sizes = (heads, 1, width, k_rope_USR.shape[2], latent_USC.shape[1])
    queries = (q_latent_NHC.contiguous(), q_rope_NHR.contiguous())
    where = _where(tables_BU, sequence_N, lengths_N)
    tile = _tile(*sizes, itemsize=latent_USC.element_size())
    out_NHC = torch.empty_like(queries[0])
    return _attend(
        "paged_latent", queries, (latent_USC, k_rope_USR), where, scale=scale, tile=tile, out_NHV=out_NHC
    )


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
    _, page_size, key_heads, value_width = value_USGV.shape
    sizes = (q_NHD.shape[1], key_heads, q_NHD.shape[2], value_width, page_size)
    where = _where(tables_BU, sequence_N, lengths_N)
    tile = _tile(*sizes, itemsize=key_USGD.element_size())
    queries, entries = (q_NHD.contiguous(),), (key_USGD, value_USGV)
    out_NHV = q_NHD.new_empty(*q_NHD.shape[:2], value_width)
    return _attend("paged_heads", queries, entries, where, scale=scale, tile=tile, out_NHV=out_NHV)


def _tile(
    heads: int, key_heads: int, width: int, extra_width: int, page_size: int, *, itemsize: int
) -> AttentionTile:
    block_width, block_extra = block(width), block(extra_width)
    keys = TILE_BYTES // (itemsize * max(block_width, block_extra))
    return AttentionTile(
        heads=heads,
        key_heads=key_heads,
        width=width,
        extra_width=extra_width,
        page_size=page_size,
        span=SPAN,
        block_heads=min(block(heads // key_heads), WIDE_HEADS if itemsize == 2 else 16),
        block_width=block_width,
        block_extra=block_extra,
        block_keys=max(16, min(64, keys)) if itemsize == 2 else 16,
    )


def _attend(
    program: str,
    queries: tuple[Tensor, ...],
    entries: tuple[Tensor, Tensor],
    where: Where,
    *,
    scale: float,
    tile: AttentionTile,
    out_NHV: Tensor,
) -> Tensor:
    """Every row's spans, then their sum; the tables bound their number, so the GPU is not asked for it."""
    assert all(x.is_contiguous() and x.dtype == out_NHV.dtype for x in (*queries, *entries))
    rows, heads, value_width = out_NHV.shape
    spans = max(1, -(-where.width * tile.page_size // tile.span))
    at_once = max(1, rows if spans == 1 else PARTIAL_BYTES // (4 * spans * heads * value_width))
    blocks = tile.key_heads * -(-(heads // tile.key_heads) // tile.block_heads)
    options = {"num_warps": 8 if tile.block_heads == WIDE_HEADS else 4, "num_stages": 2}
    for first in range(0, rows, at_once):
        part = slice(first, first + at_once)
        out, queries_here = out_NHV[part], tuple(x[part] for x in queries)
        here = where._replace(sequence=where.sequence[part], lengths=where.lengths[part])
        sums = torch.empty(len(out), heads, spans, device=out.device)
        mixes = out if spans == 1 else torch.empty(*sums.shape, value_width, device=out.device)
        grid = (len(out), blocks, spans)
        launch(program, grid, mixes, sums, queries_here, entries, here, scale, tile, **options)
        if spans > 1:
            sizes = (spans, value_width, block(value_width), tile.span)
            launch("join_spans", (len(out), heads), out, mixes, sums, here.lengths, *sizes)
    return out_NHV


def _where(tables_BU: Tensor, sequence_N: Tensor, lengths_N: Tensor) -> Where:
    tables, sequence, lengths = (x.to(torch.int32).contiguous() for x in (tables_BU, sequence_N, lengths_N))
    return Where(tables, sequence, lengths, tables.shape[1])
