"""A server behind this one: what it has to do, whether it makes tokens, and its models."""

import asyncio
import logging
import random
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, suppress

from shoestring.errors import ConfigError
from shoestring.sampling_params import SamplingParams
from shoestring.serve.backends.address import Address, list_models
from shoestring.serve.backends.backend import ModelCard
from shoestring.serve.backends.balance import Candidate
from shoestring.serve.backends.breaker import Breaker
from shoestring.serve.backends.errors import RequestError
from shoestring.serve.backends.remote import RemoteBackend, ServerGone
from shoestring.serve.backends.reply import Delta
from shoestring.serve.backends.request import BackendRequest, ChatRequest, TextRequest

log = logging.getLogger(__name__)

FIRST = Delta()
"""The first item of a stream, before any token: the server has taken the request."""
PROBE_S = 5.0
"""Seconds without a token after which one is asked for, with a jitter of a quarter."""
REOPEN_S = 1.0
"""Seconds between two probes of a server that is out."""
PROBE_GAP_S = 0.2
"""The least time between two probes, however many requests fail."""
PROBE_TIMEOUT_S = 10.0
TYPICAL_TOKENS = 512
"""The longest reply that a prediction expects: most end long before the limit that they are given."""
CHARS_PER_TOKEN = 4


class Upstream:
    """One server. Use it on one event loop."""

    def __init__(self, address: Address, models: Mapping[str, ModelCard]) -> None:
        """`models` is empty for a server that does not answer yet: it is out until it does."""
        self.name, self.weight = address.name, address.weight
        self.breaker = Breaker()
        self.open_requests = 0
        self.open_tokens = 0.0
        """Predicted tokens of the open requests."""
        self.num_failures = 0
        """Requests and probes that failed by the server's fault, since the start."""
        self._address = address
        self._backends: dict[str, RemoteBackend] = {}
        self._last_token_s = -1e9
        self._last_model = ""
        self._wake = asyncio.Event()
        self._watch: asyncio.Task[None] | None = None
        self._learn(models)
        if not models:
            self.breaker.state = "open"

    @property
    def cards(self) -> dict[str, ModelCard]:
        """Its models by name."""
        return {name: backend.card for name, backend in self._backends.items()}

    def takes(self, model: str) -> bool:
        """Return whether requests to a model may go to this server now."""
        return self.breaker.lets_requests and model in self._backends

    @property
    def candidate(self) -> Candidate:
        return Candidate(name=self.name, weight=self.weight, open_tokens=self.open_tokens)

    def start(self) -> None:
        """Begin to probe, on the running event loop."""
        if self._watch is None:
            self._watch = asyncio.create_task(self._probe_forever())

    async def close(self) -> None:
        """End the probes and the connections."""
        if self._watch is not None:
            self._watch.cancel()
            with suppress(asyncio.CancelledError):
                await self._watch
        for backend in self._backends.values():
            await backend.close()

    def backend(self, model: str) -> RemoteBackend:
        """The client of one of its models."""
        return self._backends[model]

    async def deltas(self, model: str, request: BackendRequest) -> AsyncGenerator[Delta]:
        """FIRST, and then the reply as it comes; closing this closes the connection. Raises RequestError."""
        tokens = predicted_tokens(request)
        self._last_model = model
        self.open_requests += 1
        self.open_tokens += tokens
        try:
            work = await self._backends[model].prepare(request)
            async with aclosing(await work.start()) as deltas:
                yield FIRST
                async for delta in deltas:
                    self._last_token_s = time.monotonic()
                    self.breaker.token()
                    yield delta
        except RequestError as error:
            self._count(error)
            raise
        finally:
            self.open_requests -= 1
            self.open_tokens = self.open_tokens - tokens if self.open_requests else 0.0

    async def probe(self) -> None:
        """Ask for one token, and let requests in or not."""
        before = self.breaker.state
        self.breaker.begin_probe()
        try:
            async with asyncio.timeout(PROBE_TIMEOUT_S):
                if self.breaker.state == "half_open":  # another server may have come up at its address
                    self._learn(await list_models(self._address))
                await self._generate()
        except (RequestError, ConfigError, TimeoutError) as error:
            self.num_failures += 1
            self.breaker.probe_ended(ok=False)
            if before == "closed":
                log.warning("the server %s is out: %s", self.name, str(error) or type(error).__name__)
        else:
            self.breaker.probe_ended(ok=True)
            if before != "closed":
                log.warning("the server %s is back", self.name)

    async def _generate(self) -> None:
        """One token of the model that was asked for last. Raises RequestError when none comes."""
        model = self._last_model if self._last_model in self._backends else next(iter(self._backends))
        sampling = SamplingParams(max_tokens=1)
        chat = ChatRequest(messages=({"role": "user", "content": "Hi"},), sampling=sampling)
        try:
            await self._read(model, chat)
        except RequestError as error:
            if error.kind not in ("invalid", "not_found"):
                raise
            await self._read(model, TextRequest(prompt="Hi", sampling=sampling))  # it has no chat template

    async def _read(self, model: str, request: BackendRequest) -> None:
        work = await self._backends[model].prepare(request)
        async with aclosing(await work.start()) as deltas:
            async for _ in deltas:
                pass

    async def _probe_forever(self) -> None:
        while True:
            is_silent = time.monotonic() - self._last_token_s >= PROBE_S
            if is_silent or self._wake.is_set() or not self.breaker.lets_requests:
                self._wake.clear()
                await self.probe()
            await asyncio.sleep(PROBE_GAP_S)
            pause = PROBE_S if self.breaker.lets_requests else REOPEN_S
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), pause * random.uniform(0.75, 1.25))

    def _count(self, error: RequestError) -> None:
        """Take note of a request that failed; one that was its sender's fault says nothing of the server."""
        if error.kind not in ("overloaded", "failed"):
            return
        self.num_failures += 1
        if isinstance(error, ServerGone):
            before = self.breaker.state
            self.breaker.connection_failed()
            if before != self.breaker.state:
                log.warning("the server %s is out: %s", self.name, error)
        self._wake.set()

    def _learn(self, models: Mapping[str, ModelCard]) -> None:
        """Take the list of models, of which open requests keep their own."""
        self._backends = {
            name: self._backends.get(name)
            or RemoteBackend(card, self._address.url, model=name, key=self._address.key)
            for name, card in models.items()
        }


def predicted_tokens(request: BackendRequest) -> float:
    """About how many tokens a request is, prompt and reply."""
    if isinstance(request, ChatRequest):
        length = sum(len(str(message.get("content"))) for message in request.messages) / CHARS_PER_TOKEN
    else:
        length = len(request.prompt) / (CHARS_PER_TOKEN if isinstance(request.prompt, str) else 1)
    reply = min(request.sampling.max_tokens or TYPICAL_TOKENS, TYPICAL_TOKENS)
    return length + request.sampling.n * reply
