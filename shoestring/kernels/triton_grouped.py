"""Products on a GPU: rows sorted by expert, and packed weights that are unpacked in registers."""

import torch
from torch import Tensor

from shoestring.kernels import reference
from shoestring.kernels.packed import GROUP, SCALE_BYTES, Packed
from shoestring.kernels.triton_call import ProductTile, launch


def grouped_linear(x_ND: Tensor, weight_EFD: Tensor, ends_E: Tensor) -> Tensor:
    """See reference.grouped_linear; without gradients."""
    weight = weight_EFD.contiguous()
    experts, outputs, depth = weight.shape
    return _product(x_ND, weight, ends_E, (experts, outputs, depth), bits=0)


def packed_linear(x: Tensor, weight: Packed, bias_F: Tensor | None = None) -> Tensor:
    """See reference.packed_linear."""
    x_ND = x.reshape(-1, weight.depth)
    out = _packed_product(x_ND, weight, _whole(x_ND)).unflatten(0, x.shape[:-1])
    return out if bias_F is None else out + bias_F.to(x.dtype)


def packed_linear_stack(x_NHD: Tensor, weight: Packed) -> Tensor:
    """See reference.packed_linear_stack: each matrix of the stack is an expert with every token."""
    count, stack, _ = x_NHD.shape
    ends_H = torch.arange(1, stack + 1, device=x_NHD.device, dtype=torch.int32) * count
    out_HNF = _packed_product(x_NHD.transpose(0, 1).flatten(0, 1), weight, ends_H).unflatten(
        0, (stack, count)
    )
    return out_HNF.transpose(0, 1).contiguous()


def packed_experts(
    x_ND: Tensor, experts_NK: Tensor, weights_NK: Tensor, gate_up: Packed, down: Packed
) -> Tensor:
    """See reference.packed_experts: rows are sorted by expert and back on the GPU, without a wait for it."""
    experts_M = experts_NK.flatten()
    order_M = experts_M.argsort(stable=True)
    experts_E = torch.arange(len(gate_up.blocks), device=x_ND.device, dtype=experts_M.dtype)
    ends_E = torch.searchsorted(experts_M[order_M], experts_E, right=True, out_int32=True)
    rows_MD = x_ND[order_M // experts_NK.shape[1]]
    hidden_MF = reference.swiglu_packed(_packed_product(rows_MD, gate_up, ends_E))
    rows_MD = _packed_product(hidden_MF, down, ends_E)
    positions_NK = order_M.argsort().view_as(experts_NK)
    return reference.combine(rows_MD, positions_NK, weights_NK)


def _whole(x_ND: Tensor) -> Tensor:
    """The ends of one expert that has all rows."""
    return torch.full((1,), len(x_ND), device=x_ND.device, dtype=torch.int32)


def _packed_product(x_ND: Tensor, weight: Packed, ends_E: Tensor) -> Tensor:
    """The same blocks seen as words, which hold the integers, and as halves, which hold the scales."""
    blocks = weight.blocks.contiguous()
    assert blocks.shape[-1] == GROUP * 16 * weight.bits // 8 + SCALE_BYTES
    views = (blocks.view(torch.int32), blocks.view(torch.int16))
    sizes = (len(blocks), weight.outputs, weight.depth)
    return _product(x_ND, views, ends_E, sizes, bits=weight.bits)


def _product(
    x_ND: Tensor,
    weight: Tensor | tuple[Tensor, Tensor],
    ends_E: Tensor,
    sizes: tuple[int, int, int],
    *,
    bits: int,
) -> Tensor:
    """Launch as many row blocks as there can be at most; those that no expert needs end at once."""
    x_ND, ends = x_ND.contiguous(), ends_E.to(torch.int32).contiguous()
    out_NF = x_ND.new_empty(len(x_ND), sizes[1])
    if not len(x_ND):
        return out_NF
    tile = _tile(len(x_ND), *sizes, bits=bits, itemsize=x_ND.element_size())
    row_blocks = min(len(x_ND), len(x_ND) // tile.block_rows + tile.experts)
    grid = (row_blocks, -(-tile.outputs // tile.block_outputs))
    launch("grouped_product", grid, out_NF, x_ND, weight, ends, tile, num_warps=4, num_stages=3)
    return out_NF


def _tile(rows: int, experts: int, outputs: int, depth: int, *, bits: int, itemsize: int) -> ProductTile:
    """Row blocks about as high as an expert's share; with few, bytes of weights on the way count.

    The largest sizes are those for which ptxas spills no registers, in float32 as in 16 bits.
    """
    share, most = -(-rows // experts), 128 // itemsize
    return ProductTile(
        experts=experts,
        outputs=outputs,
        depth=depth,
        bits=bits,
        block_experts=1 << (experts - 1).bit_length(),
        block_rows=max(16, min(most, 1 << (share - 1).bit_length())),
        block_outputs=32 if share <= 16 else most,
        block_depth=2 * most if bits == 4 and share <= 16 else most,
    )
