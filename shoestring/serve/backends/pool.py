"""The backend of a model on several servers: a request goes to one, and to another if that fails at once."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace

from shoestring.errors import ConfigError
from shoestring.serve.backends.address import Address, list_models
from shoestring.serve.backends.backend import ModelCard
from shoestring.serve.backends.balance import choose, prefix_of
from shoestring.serve.backends.errors import RequestError
from shoestring.serve.backends.reply import Delta, Work
from shoestring.serve.backends.request import BackendRequest
from shoestring.serve.backends.upstream import FIRST, Upstream

log = logging.getLogger(__name__)

RETRY_S = 2.0
"""Seconds after which to ask again for a model whose servers are all out."""


def open_pools(addresses: Sequence[Address]) -> "list[PoolBackend]":
    """One backend for each model that the servers list.

    A server that does not answer joins when it does. Raises ConfigError when none answers.
    """

    async def list_all() -> "list[dict[str, ModelCard] | BaseException]":
        return await asyncio.gather(*map(list_models, addresses), return_exceptions=True)

    upstreams, errors = [], []
    for address, models in zip(addresses, asyncio.run(list_all()), strict=True):
        if isinstance(models, ConfigError):
            errors.append(models)
        elif isinstance(models, BaseException):
            raise models
        upstreams.append(Upstream(address, models if isinstance(models, dict) else {}))
    if addresses and len(errors) == len(addresses):
        raise errors[0]
    for error in errors:
        log.warning("%s; it is used when it answers", error)
    names = dict.fromkeys(name for upstream in upstreams for name in upstream.cards)
    return [PoolBackend(name, upstreams) for name in names]


class PoolBackend:
    """A model and all servers, of which those that have it answer. Use it on one event loop."""

    def __init__(self, model: str, upstreams: Sequence[Upstream]) -> None:
        self.upstreams = upstreams
        cards = [upstream.cards[model] for upstream in upstreams if model in upstream.cards]
        self._card = replace(cards[0], max_model_len=min(card.max_model_len for card in cards))

    @property
    def card(self) -> ModelCard:
        return self._card

    @property
    def num_up(self) -> int:
        """The servers that answer now."""
        return sum(upstream.takes(self._card.id) for upstream in self.upstreams)

    @property
    def is_healthy(self) -> bool:
        return self.num_up > 0

    def start(self) -> None:
        """Begin to probe the servers, on the running event loop."""
        for upstream in self.upstreams:
            upstream.start()

    async def close(self) -> None:
        for upstream in self.upstreams:
            await upstream.close()

    async def tokenize(self, request: BackendRequest) -> tuple[int, ...]:
        return await self._choose(request).backend(self._card.id).tokenize(request)

    async def detokenize(self, token_ids: Sequence[int]) -> str:
        for upstream in self.upstreams:
            if upstream.takes(self._card.id):
                return await upstream.backend(self._card.id).detokenize(token_ids)
        raise self._nobody()

    async def prepare(self, request: BackendRequest) -> Work:
        work = await self._choose(request).backend(self._card.id).prepare(request)

        async def start() -> AsyncGenerator[Delta]:
            deltas = self._deltas(request)
            await anext(deltas)  # FIRST: from here on closing the deltas closes the connection
            return deltas

        return replace(work, start=start)

    async def _deltas(self, request: BackendRequest) -> AsyncGenerator[Delta]:
        """FIRST, and the deltas of a server; of a second one when the first fails before its first delta."""
        first, has_begun, has_token = self._choose(request), False, False
        for upstream in (first, None):
            try:
                upstream = upstream or self._choose(request, without=first)
                async with aclosing(upstream.deltas(self._card.id, request)) as deltas:
                    async for delta in deltas:
                        has_token = has_token or delta is not FIRST
                        if delta is not FIRST or not has_begun:
                            has_begun = True
                            yield delta
                return
            except RequestError as error:
                if has_token or upstream is not first or not self._may_retry(error, first):
                    raise
                log.info("the server %s failed before its first token; another is asked", first.name)

    def _may_retry(self, error: RequestError, server: Upstream) -> bool:
        """Whether another server might do better: not when the request itself is wrong."""
        is_wrong = error.kind not in ("overloaded", "failed", "rate_limit")
        others = any(other.takes(self._card.id) for other in self.upstreams if other is not server)
        return others and not is_wrong

    def _choose(self, request: BackendRequest, without: Upstream | None = None) -> Upstream:
        """The server for a request. Raises RequestError when all are out."""
        able = {
            upstream.name: upstream
            for upstream in self.upstreams
            if upstream.takes(self._card.id) and upstream is not without
        }
        if not able:
            raise self._nobody()
        return able[choose([upstream.candidate for upstream in able.values()], prefix_of(request)).name]

    def _nobody(self) -> RequestError:
        sentence = f"no server of {self._card.id} answers now; try again in a moment"
        return RequestError("overloaded", sentence, retry_after_s=RETRY_S)
