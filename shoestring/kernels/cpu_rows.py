"""Linear layers and experts on a CPU, for inference: no row depends on the rest of the batch."""

import torch
from torch import Tensor

from shoestring.kernels.cpu_call import call
from shoestring.kernels.packed import Packed

DTYPES = (torch.float32, torch.bfloat16)


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """See reference.rms_norm; nothing is kept for a gradient."""
    x, weight, y = x.contiguous(), weight.float().contiguous(), torch.empty(x.shape)
    width = x.shape[-1]
    rows = x.numel() // width
    call("rms_norm_forward", rows, width, float(eps), x, weight, y, torch.empty(rows))
    return y


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """See reference.swiglu."""
    gate, up, y = gate.contiguous(), up.contiguous(), torch.empty(gate.shape)
    width = gate.shape[-1]
    call("swiglu_forward", gate.numel() // width, width, width, gate, up, y)
    return y


def linear(x: Tensor, weight_FD: Tensor, bias_F: Tensor | None = None) -> Tensor:
    """See reference.linear; float32 and bfloat16 weights are read where they are."""
    weight = weight_FD if weight_FD.dtype in DTYPES else weight_FD.float()
    x_ND, weight = x.reshape(-1, x.shape[-1]).contiguous(), weight.contiguous()
    bias = None if bias_F is None else bias_F.float().contiguous()
    (count, depth), outputs = x_ND.shape, weight.shape[0]
    y = x.new_empty(*x.shape[:-1], outputs)
    sizes = (count, depth, outputs)
    is_bf16 = int(weight.dtype == torch.bfloat16)
    call("linear_rows", is_bf16, 1, None, *sizes, x_ND, 0, depth, weight, bias, y, 0, outputs)
    return y


def linear_stack(x_NHD: Tensor, weight_HFD: Tensor) -> Tensor:
    """See reference.linear_stack."""
    weight = weight_HFD.contiguous() if weight_HFD.dtype in DTYPES else weight_HFD.float().contiguous()
    x_NHD = x_NHD.contiguous()
    (count, stack, depth), outputs = x_NHD.shape, weight.shape[1]
    y_NHF = x_NHD.new_empty(count, stack, outputs)
    is_bf16 = int(weight.dtype == torch.bfloat16)
    sizes, x_strides, y_strides = (count, depth, outputs), (depth, stack * depth), (outputs, stack * outputs)
    call("linear_rows", is_bf16, stack, None, *sizes, x_NHD, *x_strides, weight, None, y_NHF, *y_strides)
    return y_NHF


def grouped_linear(x_ND: Tensor, weight_EFD: Tensor, ends_E: Tensor) -> Tensor:
    """See reference.grouped_linear."""
    weight = weight_EFD if weight_EFD.dtype in DTYPES else weight_EFD.float()
    x_ND, weight, ends = x_ND.contiguous(), weight.contiguous(), ends_E.to(torch.int64)
    experts, outputs, depth = weight.shape
    y_NF = x_ND.new_empty(len(x_ND), outputs)
    is_bf16 = int(weight.dtype == torch.bfloat16)
    sizes = (len(x_ND), depth, outputs)
    call("linear_rows", is_bf16, experts, ends, *sizes, x_ND, 0, depth, weight, None, y_NF, 0, outputs)
    return y_NF


def packed_linear(x: Tensor, weight: Packed, bias_F: Tensor | None = None) -> Tensor:
    """See reference.packed_linear; activations become 8-bit integers for 4-bit weights, 16-bit for int8."""
    x_ND = x.reshape(-1, weight.depth).contiguous()
    y = x.new_empty(*x.shape[:-1], weight.outputs)
    sizes = (len(x_ND), weight.depth, weight.outputs)
    bias = None if bias_F is None else bias_F.float().contiguous()
    arguments = (x_ND, 0, weight.depth, weight.blocks, bias, y, 0, weight.outputs)
    call("packed_linear", weight.bits, 1, *sizes, *arguments)
    return y


def packed_linear_stack(x_NHD: Tensor, weight: Packed) -> Tensor:
    """See reference.packed_linear_stack."""
    x_NHD = x_NHD.contiguous()
    (count, stack, depth), outputs = x_NHD.shape, weight.outputs
    y_NHF = x_NHD.new_empty(count, stack, outputs)
    x_strides, y_strides = (depth, stack * depth), (outputs, stack * outputs)
    arguments = (x_NHD, *x_strides, weight.blocks, None, y_NHF, *y_strides)
    call("packed_linear", weight.bits, stack, count, depth, outputs, *arguments)
    return y_NHF


def packed_experts(
    x_ND: Tensor, experts_NK: Tensor, weights_NK: Tensor, gate_up: Packed, down: Packed
) -> Tensor:
    """See reference.packed_experts: one pass over the experts, from gathering rows to their sum."""
    x_ND, y_ND = x_ND.contiguous(), torch.empty_like(x_ND, memory_format=torch.contiguous_format)
    sizes = (*experts_NK.shape, x_ND.shape[1], down.depth, len(gate_up.blocks))
    routing = (experts_NK.contiguous(), weights_NK.float().contiguous())
    call("packed_experts", gate_up.bits, *sizes, x_ND, *routing, gate_up.blocks, down.blocks, y_ND)
    return y_ND


def sample_tokens(logits_NW: Tensor, temperature_N: Tensor, number_N: Tensor) -> tuple[Tensor, Tensor]:
    """See reference.sample_tokens; weights of tokens are exponentials in float32."""
    logits = logits_NW.contiguous()
    ids_N, logp_N = torch.empty(len(logits), dtype=torch.int64), torch.empty(len(logits))
    temperatures, numbers = temperature_N.double().contiguous(), number_N.double().contiguous()
    call("sample_tokens", *logits.shape, logits, temperatures, numbers, ids_N, logp_N)
    return ids_N, logp_N


def uniform_numbers(seed_N: Tensor, index_N: Tensor) -> Tensor:
    """See reference.uniform_numbers."""
    seeds, indices, number_N = (
        seed_N.contiguous(),
        index_N.contiguous(),
        torch.empty(len(seed_N), dtype=torch.float64),
    )
    call("uniform_numbers", len(seeds), seeds, indices, number_N)
    return number_N
