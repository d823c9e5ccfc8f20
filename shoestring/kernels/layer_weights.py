"""Weights of a packed layer, as tensors and as C structs, for operations on whole layers; the routing."""

import ctypes
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from shoestring.kernels.cpu_call import pointer
from shoestring.kernels.packed import Packed

_POINTER, _INT, _FLOAT = ctypes.c_void_p, ctypes.c_int64, ctypes.c_float


def _struct(name: str, **members: type) -> type[ctypes.Structure]:
    return type(name, (ctypes.Structure,), {"_fields_": list(members.items())})


_Norm = _struct("Norm", weight=_POINTER, eps=_FLOAT)
_Matrix = _struct("Matrix", blocks=_POINTER, bias=_POINTER, bits=_INT, stack=_INT, outputs=_INT, depth=_INT)
_Experts = _struct("Experts", gate_up=_POINTER, down=_POINTER, bits=_INT, count=_INT, width=_INT)
_ROUTING = dict.fromkeys(("experts", "per_token", "groups", "top_groups", "softmax", "normalize"), _INT)
_Router = _struct("Router", weight=_POINTER, bias=_POINTER, **_ROUTING, scaling=_FLOAT)
_LATENT = {"norm": _Norm, "q_a": _Matrix, "q_norm": _Norm, "q_b": _Matrix, "kv_a": _Matrix, "kv_norm": _Norm}
_UP = {"up_key": _Matrix, "up_value": _Matrix}
_LatentAttention = _struct("LatentAttention", **_LATENT, **_UP, out=_Matrix, scale=_FLOAT)
_QKV = {"q": _Matrix, "k": _Matrix, "v": _Matrix}
_HEADS = {"q_norm": _Norm, "k_norm": _Norm}
_GroupedAttention = _struct(
    "GroupedAttention", norm=_Norm, **_QKV, out=_Matrix, **_HEADS, width=_INT, scale=_FLOAT
)
_PARTS = {"router": _Router, "experts": _Experts, "shared_expert": _Experts}
_FeedForward = _struct("FeedForward", norm=_Norm, hidden=_INT, **_PARTS)


class _Weights:
    """Float32, contiguous tensors. `struct` points at them, so this object must outlive its use."""

    layout: ClassVar[type[ctypes.Structure]]

    @cached_property
    def struct(self) -> ctypes.Structure:
        """The C struct that kernels/cpu declares: the same fields in the same order."""
        members = zip(fields(self), self.layout._fields_, strict=True)  # type: ignore[arg-type]
        return self.layout(*(_native(getattr(self, f.name), member[1]) for f, member in members))

    @cached_property
    def address(self) -> int:
        return ctypes.addressof(self.struct)


@dataclass(frozen=True, eq=False)
class NormWeights(_Weights):
    """RMSNorm."""

    layout = _Norm

    weight_D: Tensor
    eps: float


@dataclass(frozen=True, eq=False)
class MatrixWeights(_Weights):
    """A packed linear layer, or a stack of matrices without a bias."""

    layout = _Matrix

    weight: Packed
    bias_F: Tensor | None = None

    @cached_property
    def struct(self) -> ctypes.Structure:
        w = self.weight
        return _Matrix(
            pointer(w.blocks), _native(self.bias_F, _POINTER), w.bits, len(w.blocks), w.outputs, w.depth
        )


@dataclass(frozen=True, eq=False)
class LatentAttentionWeights(_Weights):
    """MLA and the norm before it; q_a is None where queries come from the hidden state directly."""

    layout = _LatentAttention

    norm: NormWeights
    q_a: MatrixWeights | None
    q_norm: NormWeights | None
    q_b: MatrixWeights
    kv_a: MatrixWeights
    kv_norm: NormWeights
    up_key: MatrixWeights
    """(H, C, P)."""
    up_value: MatrixWeights
    """(H, V, C)."""
    out: MatrixWeights
    scale: float


@dataclass(frozen=True, eq=False)
class GroupedAttentionWeights(_Weights):
    """GQA and the norm before it; heads are `width` wide, and q_norm and k_norm are theirs or None."""

    layout = _GroupedAttention

    norm: NormWeights
    q: MatrixWeights
    k: MatrixWeights
    v: MatrixWeights
    out: MatrixWeights
    q_norm: NormWeights | None
    k_norm: NormWeights | None
    width: int
    scale: float


@dataclass(frozen=True, eq=False)
class RouterWeights(_Weights):
    """The rule by which a token's experts are chosen: see reference.route."""

    layout = _Router

    weight_ED: Tensor
    bias_E: Tensor | None
    """The balance bias of V3: it moves the choice, never the gates."""
    experts: int
    per_token: int
    groups: int
    top_groups: int
    """Groups of experts that a token may visit; all of `groups` for no limit."""
    softmax: bool
    """Affinities are a softmax over experts, else a sigmoid of each."""
    normalize: bool
    scaling: float

    def __post_init__(self) -> None:
        assert self.experts % self.groups == 0
        if self.bias_E is not None and self.top_groups < self.groups:
            assert self.experts > self.groups  # a group counts by its best two experts
        assert self.per_token <= self.experts
        assert self.top_groups <= self.groups


@dataclass(frozen=True, eq=False)
class ExpertWeights(_Weights):
    """Packed gate_up (E, 2F, D) and down (E, D, F)."""

    layout = _Experts

    gate_up: Packed
    down: Packed

    @cached_property
    def struct(self) -> ctypes.Structure:
        up, down = self.gate_up, self.down
        return _Experts(pointer(up.blocks), pointer(down.blocks), up.bits, len(up.blocks), down.depth)


@dataclass(frozen=True, eq=False)
class FeedForwardWeights(_Weights):
    """A norm, then routed experts, one expert for every token, or both."""

    layout = _FeedForward

    norm: NormWeights
    hidden: int
    router: RouterWeights | None
    experts: ExpertWeights | None
    shared_expert: ExpertWeights | None
    """The shared experts side by side as one expert, or a dense feed-forward."""


@dataclass(frozen=True)
class Routing:
    """The experts of each token and their gates (N, K), and every expert's affinity (N, E)."""

    experts_NK: Tensor
    weights_NK: Tensor
    scores_NE: Tensor

    def load_E(self) -> Tensor:
        """Rows that each expert receives, int64."""
        return torch.bincount(self.experts_NK.flatten(), minlength=self.scores_NE.shape[1])


@dataclass(frozen=True)
class FeedForwardResult:
    """The hidden states after a layer, and the routing if it has a router."""

    hidden_ND: Tensor
    routing: Routing | None


class PagedRows(Protocol):
    """Places of N rows in the pages: slots to write (int64), and paged attention's arguments (int32)."""

    @property
    def slot_N(self) -> Tensor: ...
    @property
    def tables_BU(self) -> Tensor: ...
    @property
    def sequence_N(self) -> Tensor: ...
    @property
    def lengths_N(self) -> Tensor: ...


def _native(value: Any, kind: Any) -> Any:
    """A field in C: a struct, an address or a number; None is an empty struct or a null pointer."""
    if value is None:
        return kind() if issubclass(kind, ctypes.Structure) else None
    if isinstance(value, Tensor):
        assert value.dtype == torch.float32
        assert value.is_contiguous()
        return pointer(value)
    return value.struct if isinstance(value, _Weights) else value
