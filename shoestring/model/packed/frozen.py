"""Packed models on which adapters are trained: a plain model's blocks, whose matrices stay packed (QLoRA).

The base never exists as floats but for one matrix at a time: a product unpacks its matrix, and so does its
backward pass, which needs nothing but that (arXiv 2305.14314, section 3, whose 4-bit numbers are others). In
an engine, in inference mode, a product is that of the packed kernels.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from shoestring import kernels
from shoestring.kernels import Routing, native
from shoestring.kernels.packed import Packed, unpack
from shoestring.model.adapter import Adapter, adapted
from shoestring.model.layers import MLP
from shoestring.model.moe import LocalTokenDispatcher
from shoestring.model.packed.layers import PackedExperts, PackedLinear, PackedMLP, PackedUpProjection
from shoestring.model.transformer import Transformer


class FrozenLinear(nn.Module):
    """A linear layer on packed weights that passes gradients on and gets none itself."""

    adapter_slots: ClassVar[Mapping[str, str]] = {"weight": "adapter"}
    blocks: Tensor
    adapter: Adapter | None

    def __init__(self, weight: Packed, bias: nn.Parameter | None = None) -> None:
        super().__init__()
        self.bits, self.out_features, self.in_features = weight.bits, weight.outputs, weight.depth
        self.register_buffer("blocks", weight.blocks)
        self.bias = bias
        self.register_module("adapter", None)

    @property
    def weight(self) -> Tensor:
        """The float32 matrix (F, D), unpacked at each call."""
        return unpack(Packed(self.bits, self.out_features, self.blocks))[0]

    def forward(self, x: Tensor) -> Tensor:
        y = self._product(x)
        y = y if self.bias is None else y + self.bias.to(y.dtype)
        if self.adapter is None:
            return y
        return self.adapter(x, y, None if self.adapter.magnitude is None else self.weight, self.bias)

    def matrix_shape(self, parameter: str) -> tuple[int, ...]:
        """See AdaptedLayer."""
        return (self.out_features, self.in_features)

    def _product(self, x: Tensor) -> Tensor:
        if torch.is_inference_mode_enabled():
            return kernels.packed_linear(x, Packed(self.bits, self.out_features, self.blocks), None)
        return _Product.apply(x, lambda: self.weight)


class FrozenUpProjection(FrozenLinear):
    """MLA's kv_b_proj on packed weights: see UpProjection."""

    def __init__(self, packed: PackedUpProjection) -> None:
        nn.Module.__init__(self)
        self.heads, self.nope, self.value_width = packed.heads, packed.nope, packed.value_width
        self.in_features = packed.rank
        self.out_features = self.heads * (self.nope + self.value_width)
        self.packed, self.bias = packed, None
        self.register_module("adapter", None)

    @property
    def weight(self) -> Tensor:
        """The float32 matrix (H (P + V), C), unpacked at each call."""
        key_HPC, value_HVC = unpack(self.packed.key).transpose(1, 2), unpack(self.packed.value)
        return torch.cat((key_HPC, value_HVC), dim=1).flatten(0, 1)

    def absorb(self, q_BTHP: Tensor) -> Tensor:
        """See UpProjection.absorb."""
        if self.adapter is None or not self.adapter.is_on:
            return self.packed.absorb(q_BTHP)
        key_HPC = self._halves()[0]
        q_NHP = q_BTHP.flatten(0, 1)
        return kernels.linear_stack(q_NHP, key_HPC.transpose(1, 2)).unflatten(0, q_BTHP.shape[:2])

    def expand(self, mixed_BTHC: Tensor) -> Tensor:
        """See UpProjection.expand."""
        if self.adapter is None or not self.adapter.is_on:
            return self.packed.expand(mixed_BTHC)
        value_HVC = self._halves()[1]
        return kernels.linear_stack(mixed_BTHC.flatten(0, 1), value_HVC).unflatten(0, mixed_BTHC.shape[:2])

    def _halves(self) -> tuple[Tensor, Tensor]:
        weight_HKC = adapted(self.weight, self.adapter).unflatten(0, (self.heads, -1))
        key_HPC, value_HVC = weight_HKC.split([self.nope, self.value_width], 1)
        return key_HPC, value_HVC

    def _product(self, x: Tensor) -> Tensor:
        return _Product.apply(x, lambda: self.weight)


class FrozenExperts(nn.Module):
    """The routed experts of a layer on packed weights: see Experts."""

    adapter_slots: ClassVar[Mapping[str, str]] = {
        "gate_up_proj": "gate_up_adapter",
        "down_proj": "down_adapter",
    }
    gate_up_adapter: Adapter | None
    down_adapter: Adapter | None

    def __init__(self, packed: PackedExperts) -> None:
        super().__init__()
        self.packed = packed
        for slot in self.adapter_slots.values():
            self.register_module(slot, None)

    @property
    def gate_up_proj(self) -> Tensor:
        """The float32 matrices (E, 2F, D), unpacked at each call."""
        return unpack(self.packed.experts.gate_up)

    @property
    def down_proj(self) -> Tensor:
        """The float32 matrices (E, D, F), unpacked at each call."""
        return unpack(self.packed.experts.down)

    def forward(self, x_ND: Tensor, routing: Routing) -> Tensor:
        tokens = LocalTokenDispatcher(routing)
        rows_MD, ends_E = tokens.dispatch(x_ND), tokens.ends_E
        gate_up_MF = self._product(rows_MD, "gate_up_proj", self.gate_up_adapter, ends_E)
        hidden_MF = kernels.swiglu_packed(gate_up_MF)
        return tokens.combine(self._product(hidden_MF, "down_proj", self.down_adapter, ends_E))

    def matrix_shape(self, parameter: str) -> tuple[int, ...]:
        """See AdaptedLayer."""
        count, width, size = len(self.packed.gate_up_blocks), self.packed.width, self.packed.hidden_size
        return (count, 2 * width, size) if parameter == "gate_up_proj" else (count, size, width)

    def _product(self, rows_MD: Tensor, parameter: str, adapter: Adapter | None, ends_E: Tensor) -> Tensor:
        y_MF = self._base_product(rows_MD, parameter, ends_E)
        return y_MF if adapter is None else adapter.grouped(rows_MD, y_MF, ends_E)

    def _base_product(self, rows_MD: Tensor, parameter: str, ends_E: Tensor) -> Tensor:
        if not torch.is_inference_mode_enabled():
            return _GroupedProduct.apply(rows_MD, lambda: getattr(self, parameter), ends_E)
        experts = self.packed.experts
        stack = experts.gate_up if parameter == "gate_up_proj" else experts.down
        parts, start = [rows_MD.new_empty(0, stack.outputs)], 0
        for expert, end in enumerate(ends_E.tolist()):
            if end > start:
                one = Packed(stack.bits, stack.outputs, stack.blocks[expert, None])
                parts.append(kernels.packed_linear(rows_MD[start:end], one, None))
            start = end
        return torch.cat(parts)


def freeze(packed: Transformer) -> Transformer:
    """A packed model in the form that adapters are trained on, with the same tensors but for MTP modules."""
    for name, module in list(packed.model.named_modules()):
        parent, _, leaf = name.rpartition(".")
        frozen = _frozen_form(module)
        if frozen is not None:
            setattr(packed.model.get_submodule(parent), leaf, frozen)
    with torch.device("meta"):
        model = Transformer(replace(packed.config, num_nextn_predict_layers=0), packed.compute_dtype)
    model.model.embed_tokens, model.model.norm = packed.model.embed_tokens, packed.model.norm
    for index, block in model.model.blocks():
        for name, child in packed.model.layers[index].named_children():
            setattr(block, name, child)
    if hasattr(packed, "lm_head"):
        model.add_module("lm_head", _frozen_form(packed.lm_head) or packed.lm_head)
    return model.requires_grad_(False)


@torch.no_grad()
def thaw(model: Transformer) -> Transformer:
    """An ordinary model with the float32 weights that a frozen one stands for, its adapters merged."""
    with torch.device("meta"):
        plain = Transformer(model.config, model.compute_dtype)
    plain.to_empty(device=model.device)
    modules = dict(model.named_modules())
    for name, own in plain.named_modules():
        other = modules.get(name)
        slots = getattr(other, "adapter_slots", {})
        for parameter, tensor in own.named_parameters(recurse=False):
            value = getattr(other, parameter)
            tensor.copy_(adapted(value, getattr(other, slots[parameter]) if parameter in slots else None))
        for buffer, tensor in own.named_buffers(recurse=False):
            tensor.copy_(getattr(other, buffer))
    return plain


def is_frozen(model: Transformer) -> bool:
    """Return whether the matrices of a model that is trained stay packed."""
    return any(isinstance(module, FrozenLinear | FrozenExperts) for module in model.modules())


def num_packed(model: Transformer) -> int:
    """Weights of a model that are packed, and so are none of its parameters."""
    modules = [module for name, module in model.named_modules() if name != "lm_head"]
    if not model.config.tie_word_embeddings:  # else the packed head is the embedding's
        modules.append(getattr(model, "lm_head", None))
    frozen = [module for module in modules if isinstance(module, FrozenLinear | FrozenExperts)]
    return sum(math.prod(each.matrix_shape(name)) for each in frozen for name in each.adapter_slots)


def _frozen_form(module: nn.Module) -> nn.Module | None:
    """The form of a packed module that passes gradients on; None for any other module."""
    if isinstance(module, PackedLinear):
        return FrozenLinear(module.matrix.weight, module.bias)
    if isinstance(module, PackedUpProjection):
        return FrozenUpProjection(module)
    if isinstance(module, PackedExperts):
        return FrozenExperts(module)
    if isinstance(module, PackedMLP):
        return _frozen_mlp(module)
    return None


def _frozen_mlp(packed: PackedMLP) -> MLP:
    """A feed-forward of three matrices that are parts of the packed one."""
    with torch.device("meta"):
        mlp = MLP(32, 32)
    gate, up = packed.gate_up_blocks.chunk(2, dim=1)
    matrices = {"gate_proj": (packed.width, gate), "up_proj": (packed.width, up)}
    matrices["down_proj"] = (packed.hidden_size, packed.down_blocks)
    for name, (outputs, blocks) in matrices.items():
        setattr(mlp, name, FrozenLinear(Packed(packed.bits, outputs, blocks)))
    return mlp


class _Product(torch.autograd.Function):
    """x W^T for a matrix that is made when it is needed, in both directions."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Callable[[], Tensor]) -> Tensor:
        ctx.weight = weight
        return x @ weight().to(x.dtype).T

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, None]:
        return dy @ ctx.weight().to(dy.dtype), None


class _GroupedProduct(torch.autograd.Function):
    """`grouped_linear` for a stack that is made when it is needed, in both directions."""

    @staticmethod
    def forward(ctx: Any, rows_MD: Tensor, weight: Callable[[], Tensor], ends_E: Tensor) -> Tensor:
        ctx.weight = weight
        ctx.save_for_backward(ends_E)
        return native.grouped_linear(rows_MD, weight(), ends_E)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy_MF: Tensor) -> tuple[Tensor, None, None]:
        (ends_E,) = ctx.saved_tensors
        return native.grouped_linear(dy_MF.contiguous(), ctx.weight().transpose(1, 2), ends_E), None, None
