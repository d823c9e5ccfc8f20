"""The cache protocol, and a dense cache for one batch of equally long sequences."""

from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

from shoestring.kernels.layer_weights import PagedRows

CacheSpec = dict[str, tuple[int, ...]]
"""Entries that an attention stores per token: their names, and the shape of one token's."""


class Pages(Protocol):
    """The memory of one layer, for operations that read and write it themselves."""

    @property
    def entries(self) -> Mapping[str, Tensor]:
        """Tensors (U, S, ...) by name."""
        ...

    @property
    def index(self) -> PagedRows: ...


class LayerCache(Protocol):
    """One layer's memory of earlier tokens, and attention over it."""

    @property
    def pages(self) -> Pages | None:
        """The pages of a paged cache, whose rows are one flat list (B = 1); None for any other cache."""
        ...

    def append(self, **entries_BT: Tensor) -> None:
        """Store the new tokens' entries, each (B, T, ...)."""
        ...

    def attend_latent(self, q_latent_BTHC: Tensor, q_rope_BTHR: Tensor, scale: float) -> Tensor:
        """MLA: attention of the new tokens over the latents of earlier tokens and their own: (B, T, H, C)."""
        ...

    def attend(self, q_BTHD: Tensor, scale: float) -> Tensor:
        """GQA: attention of the new tokens over the keys of earlier tokens and their own: (B, T, H, D)."""
        ...


class ModelCache(Protocol):
    """A LayerCache for each layer of one model; MTP module k's, if any, is at num_hidden_layers + k."""

    @property
    def layers(self) -> Sequence[LayerCache]: ...


class DenseLayerCache:
    """A layer's cache in one tensor per entry, `capacity` tokens long."""

    pages = None

    def __init__(
        self, spec: CacheSpec, *, batch: int, capacity: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        self.length, self.capacity = 0, capacity
        self._entries = {
            name: torch.zeros(batch, capacity, *shape, dtype=dtype, device=device)
            for name, shape in spec.items()
        }

    def append(self, **entries_BT: Tensor) -> None:
        """See LayerCache.append. Raises ValueError, before any change, when the new tokens do not fit."""
        end = self.length + next(iter(entries_BT.values())).shape[1]
        if end > self.capacity:  # or one token past the end would broadcast into nothing
            raise ValueError(f"{end} tokens do not fit a cache for {self.capacity}; make a longer one")
        for name, values in entries_BT.items():
            self._entries[name][:, self.length : end] = values
        self.length = end

    @property
    def entries(self) -> dict[str, Tensor]:
        """The entries of all tokens so far, each (B, S, ...)."""
        return {name: entries[:, : self.length] for name, entries in self._entries.items()}

    def attend_latent(self, q_latent_BTHC: Tensor, q_rope_BTHR: Tensor, scale: float) -> Tensor:
        """See LayerCache.attend_latent: the T newest tokens against all S latents (V2 section 2.1.2)."""
        latent_BSC, k_rope_BSR = self.entries["latent"], self.entries["k_rope"]
        scores_BHTS = torch.einsum("bthc,bsc->bhts", q_latent_BTHC, latent_BSC)
        scores_BHTS = scores_BHTS + torch.einsum("bthr,bsr->bhts", q_rope_BTHR, k_rope_BSR)
        probability = causal_softmax(scores_BHTS, scale)
        return torch.einsum("bhts,bsc->bthc", probability, latent_BSC)

    def attend(self, q_BTHD: Tensor, scale: float) -> Tensor:
        """See LayerCache.attend."""
        k_BSGD, v_BSGD = self.entries["key"], self.entries["value"]
        q_BTGXD = q_BTHD.unflatten(2, (k_BSGD.shape[2], -1))
        scores_BGXTS = torch.einsum("btgxd,bsgd->bgxts", q_BTGXD, k_BSGD)
        probability = causal_softmax(scores_BGXTS, scale)
        return torch.einsum("bgxts,bsgd->btgxd", probability, v_BSGD).flatten(2, 3)


def causal_softmax(scores_TS: Tensor, scale: float) -> Tensor:
    """Softmax over S of the T newest tokens' scores (..., T, S): query t sees keys up to S - T + t."""
    length, total = scores_TS.shape[-2:]
    future = torch.ones(length, total, dtype=torch.bool, device=scores_TS.device).triu(total - length + 1)
    precise_TS = (scores_TS.float() * scale).masked_fill(future, float("-inf"))
    return precise_TS.softmax(-1).to(scores_TS.dtype)


class DenseCache:
    """A DenseLayerCache for each layer of one model."""

    def __init__(
        self, specs: list[CacheSpec], *, batch: int, capacity: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        self.capacity = capacity
        self.layers = [
            DenseLayerCache(spec, batch=batch, capacity=capacity, dtype=dtype, device=device)
            for spec in specs
        ]

    @property
    def length(self) -> int:
        return self.layers[0].length
