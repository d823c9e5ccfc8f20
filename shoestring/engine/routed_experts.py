"""Which experts each token went to, kept page by page beside its cache entries, for a trainer to replay."""

from collections.abc import Mapping

import torch
from torch import Tensor

from shoestring.engine.pages import PAGE_SIZE
from shoestring.engine.sequence import Sequence
from shoestring.model.config import ModelConfig
from shoestring.model.moe import Routing


class KeptRouting:
    """The L MoE layers' choices of K experts; a page that sequences share holds them for all of these."""

    def __init__(self, config: ModelConfig, *, num_pages: int, device: torch.device) -> None:
        assert config.moe is not None
        self._layers = config.moe_layers
        shape = (num_pages * PAGE_SIZE, len(self._layers), config.moe.num_experts_per_tok)
        self._experts_SLK = torch.zeros(shape, dtype=torch.int16, device=device)

    def keep(self, routings: Mapping[int, Routing], slot_N: Tensor) -> None:
        """Note where the rows of one pass went."""
        chosen = torch.stack([routings[layer].experts_NK for layer in self._layers], dim=1)
        self._experts_SLK.index_copy_(0, slot_N, chosen.to(torch.int16))

    def of(self, sequence: Sequence) -> Tensor:
        """(T - 1, L, K) int16 of a running sequence of T tokens; the last one went nowhere yet."""
        pages = torch.tensor(sequence.pages, device=self._experts_SLK.device)
        slots = (pages[:, None] * PAGE_SIZE + torch.arange(PAGE_SIZE, device=pages.device)).flatten()
        return self._experts_SLK[slots[: len(sequence.token_ids) - 1]].cpu()
