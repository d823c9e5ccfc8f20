"""The cache protocol, and a dense cache for one batch of equally long sequences."""

from typing import Protocol

import torch
from torch import Tensor

CacheSpec = dict[str, tuple[int, ...]]
"""What an attention keeps per token: a name and the shape of one token's entry."""


class LayerCache(Protocol):
    """One layer's memory of earlier tokens."""

    @property
    def length(self) -> int:
        """Tokens already kept."""
        ...

    def append(self, **entries_BT: Tensor) -> dict[str, Tensor]:
        """Keep the new tokens' entries (B, T, ...) and return all of them (B, S, ...), S = length after."""
        ...


class DenseLayerCache:
    """Entries in one tensor per name, `capacity` tokens long."""

    def __init__(
        self, spec: CacheSpec, *, batch: int, capacity: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        self.length, self.capacity = 0, capacity
        self._entries = {
            name: torch.zeros(batch, capacity, *shape, dtype=dtype, device=device)
            for name, shape in spec.items()
        }

    def append(self, **entries_BT: Tensor) -> dict[str, Tensor]:
        """See LayerCache.append. Raises ValueError, keeping what it holds, when the new tokens do not fit."""
        end = self.length + next(iter(entries_BT.values())).shape[1]
        if end > self.capacity:  # or one token past the end would broadcast into nothing
            raise ValueError(f"the cache holds {self.capacity} tokens; {end} were given")
        for name, new in entries_BT.items():
            self._entries[name][:, self.length : end] = new
        self.length = end
        return {name: kept[:, :end] for name, kept in self._entries.items()}


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
