"""The cache protocol, and a dense cache for one batch of equally long sequences."""

from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

from shoestring.kernels.layer_weights import PagedRows

CacheSpec = dict[str, tuple[int, ...]]
"""What an attention keeps per token: a name and the shape of one token's entry."""


class Pages(Protocol):
    """One layer's memory where it lies, for operations that read and write it themselves."""

    @property
    def entries(self) -> Mapping[str, Tensor]:
        """By name, each (pages, tokens of a page, ...)."""
        ...

    @property
    def index(self) -> PagedRows: ...


class LayerCache(Protocol):
    """One layer's memory of earlier tokens, and attention over it."""

    @property
    def pages(self) -> Pages | None:
        """What is behind a paged cache of one flat list of rows (B = 1); None for any other."""
        ...

    def append(self, **entries_BT: Tensor) -> None:
        """Keep the new tokens' entries, each (B, T, ...)."""
        ...

    def attend_latent(self, q_latent_BTHC: Tensor, q_rope_BTHR: Tensor, scale: float) -> Tensor:
        """The new tokens' attention over all latents they may see, their own included: (B, T, H, C). MLA."""
        ...

    def attend(self, q_BTHD: Tensor, scale: float) -> Tensor:
        """The new tokens' attention over all keys they may see, their own included: (B, T, H, D). GQA."""
        ...


class ModelCache(Protocol):
    """A LayerCache for each layer of one model; MTP module k's, if kept, is at num_hidden_layers + k."""

    @property
    def layers(self) -> Sequence[LayerCache]: ...


class DenseLayerCache:
    """Entries in one tensor per name, `capacity` tokens long."""

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
        """See LayerCache.append. Raises ValueError, keeping what it holds, when the new tokens do not fit."""
        end = self.length + next(iter(entries_BT.values())).shape[1]
        if end > self.capacity:  # or one token past the end would broadcast into nothing
            raise ValueError(f"the cache holds {self.capacity} tokens; {end} were given")
        for name, new in entries_BT.items():
            self._entries[name][:, self.length : end] = new
        self.length = end

    @property
    def kept(self) -> dict[str, Tensor]:
        """All entries so far, each (B, S, ...)."""
        return {name: entries[:, : self.length] for name, entries in self._entries.items()}

    def attend_latent(self, q_latent_BTHC: Tensor, q_rope_BTHR: Tensor, scale: float) -> Tensor:
        """See LayerCache.attend_latent: the T newest tokens against all S latents (V2 section 2.1.2)."""
        latent_BSC, k_rope_BSR = self.kept["latent"], self.kept["k_rope"]
        scores_BHTS = torch.einsum("bthc,bsc->bhts", q_latent_BTHC, latent_BSC)
        scores_BHTS = scores_BHTS + torch.einsum("bthr,bsr->bhts", q_rope_BTHR, k_rope_BSR)
        probability = causal_softmax(scores_BHTS, scale)
        return torch.einsum("bhts,bsc->bthc", probability, latent_BSC)

    def attend(self, q_BTHD: Tensor, scale: float) -> Tensor:
        """See LayerCache.attend; queries of one key head are taken together."""
        k_BSGD, v_BSGD = self.kept["key"], self.kept["value"]
        q_BTGXD = q_BTHD.unflatten(2, (k_BSGD.shape[2], -1))
        scores_BGXTS = torch.einsum("btgxd,bsgd->bgxts", q_BTGXD, k_BSGD)
        probability = causal_softmax(scores_BGXTS, scale)
        return torch.einsum("bgxts,bsgd->btgxd", probability, v_BSGD).flatten(2, 3)


def causal_softmax(scores_TS: Tensor, scale: float) -> Tensor:
    """Softmax over S of the T newest tokens' scores (..., T, S): query t sees keys up to S - T + t."""
    length, total = scores_TS.shape[-2:]
    future = torch.ones(length, total, dtype=torch.bool, device=scores_TS.device).triu(total - length + 1)
    masked = (scores_TS.float() * scale).masked_fill(future, float("-inf"))
    return masked.softmax(-1).to(scores_TS.dtype)


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
