"""The backend of a LoRA adapter: a model with a name of its own, which another model's engine computes."""

import time
from collections.abc import Sequence
from dataclasses import replace

from shoestring.serve.backends.backend import ModelCard
from shoestring.serve.backends.lazy import LazyBackend
from shoestring.serve.backends.reply import Work
from shoestring.serve.backends.request import BackendRequest


class AdapterBackend:
    """An adapter of a model of this process, in one batch with it; the model starts, loads and ends it."""

    def __init__(self, name: str, base: LazyBackend) -> None:
        self.base = base
        self._card = ModelCard(
            id=name,
            max_model_len=base.card.max_model_len,
            created_s=int(time.time()),
            parent=base.card.id,
        )

    @property
    def card(self) -> ModelCard:
        return self._card

    @property
    def is_healthy(self) -> bool:
        return self.base.is_healthy

    def start(self) -> None:
        """Nothing: the model starts by itself."""

    async def close(self) -> None:
        """Nothing: the model is closed by itself."""

    async def tokenize(self, request: BackendRequest) -> tuple[int, ...]:
        return await self.base.tokenize(request)

    async def detokenize(self, token_ids: Sequence[int]) -> str:
        return await self.base.detokenize(token_ids)

    async def prepare(self, request: BackendRequest) -> Work:
        work = await self.base.prepare(replace(request, adapter=self._card.id))
        return replace(work, model=self._card.id)
