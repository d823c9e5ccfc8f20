"""The experts that each token was routed to, stored by page beside its cache entries, for a trainer."""

from collections.abc import Mapping

import torch
from torch import Tensor

from shoestring.engine.sequence import Sequence
from shoestring.kernels import Routing
from shoestring.model.config import ModelConfig
from shoestring.model.memory import PAGE_SIZE


class RoutedExperts:
    """The K experts of every token in the L MoE layers; sequences that share a page share them too."""

    def __init__(self, config: ModelConfig, *, num_pages: int, device: torch.device) -> None:
        assert config.moe is not None
        self._layers = config.moe_layers
        shape = (num_pages * PAGE_SIZE, len(self._layers), config.moe.num_experts_per_tok)
        self._experts_SLK = torch.zeros(shape, dtype=torch.int16, device=device)
        self._pages: Tensor = self._experts_SLK.view(num_pages, PAGE_SIZE, *shape[1:])

    def store(self, routings: Mapping[int, Routing], slot_N: Tensor) -> None:
        """Store the experts of the rows of one pass."""
        experts_NLK = torch.stack([routings[layer].experts_NK for layer in self._layers], dim=1)
        self._experts_SLK.index_copy_(0, slot_N, experts_NLK.to(torch.int16))

    def copy_pages(self, sources: Tensor, targets: Tensor) -> None:
        """Copy the experts of these pages to others."""
        self._pages.index_copy_(0, targets, self._pages[sources])

    def of(self, sequence: Sequence) -> Tensor:
        """(T - 1, L, K) int16 of a running sequence of T tokens; the last one has not been computed."""
        pages = torch.tensor(sequence.page_ids, device=self._pages.device)
        return self._pages[pages].flatten(0, 1)[: len(sequence.token_ids) - 1].cpu()
