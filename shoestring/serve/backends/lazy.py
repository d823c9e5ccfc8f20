"""Models that share the memory of this process: each is loaded when it is asked for, in place of others."""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from shoestring.device import return_freed_memory
from shoestring.errors import ShoestringError
from shoestring.serve.backends.backend import ModelCard
from shoestring.serve.backends.errors import RequestError
from shoestring.serve.backends.local import LocalBackend, most_tokens
from shoestring.serve.backends.prompts import EnginePrompt, engine_prompt
from shoestring.serve.backends.reply import Delta, Work
from shoestring.serve.backends.request import BackendRequest
from shoestring.serve.backends.room import Resident, to_unload
from shoestring.tokenizer.bpe import Tokenizer
from shoestring.tokenizer.chat.template import Template

log = logging.getLogger(__name__)

RETRY_S = 5.0
"""Seconds after which to ask again for a model that has no room."""


@dataclass(frozen=True, kw_only=True)
class LoadableModel:
    """A model as it is while it is not loaded, and how to load it."""

    name: str
    num_bytes: int
    """Memory of its weights and cache."""
    max_model_len: int
    tokenizer: Tokenizer | None
    template: Template | None
    sampling: Mapping[str, Any]
    """Sampling of requests that leave it out."""
    load: Callable[[], LocalBackend]
    """Read the weights; takes long. Raises ShoestringError."""


class ModelMemory:
    """The memory that models share. It belongs to one event loop."""

    def __init__(self, free_bytes: Callable[[int], int]) -> None:
        """`free_bytes` says how much there is for more models, given the bytes of those that are loaded."""
        self._free_bytes = free_bytes
        self.backends: list[LazyBackend] = []
        self._lock = asyncio.Lock()
        self.yields = False
        """Other work of this machine goes first."""

    @property
    def free_bytes(self) -> int:
        """Memory for more models."""
        return self._free_bytes(sum(each.model.num_bytes for each in self.backends if each.is_loaded))

    def add(self, backend: "LazyBackend") -> None:
        """Let a model share this memory."""
        self.backends.append(backend)

    def remove(self, backend: "LazyBackend") -> None:
        """Let a model share this memory no more."""
        self.backends.remove(backend)

    def set_yields(self, yields: bool) -> None:
        """Let other work of this machine go first, or no more."""
        self.yields = yields
        for backend in self.backends:
            if backend.local is not None:
                backend.local.set_yields(yields)

    def has_room(self, model: LoadableModel) -> bool:
        """Return whether a model fits beside those that are loaded."""
        return self.to_unload(model) == []

    def to_unload(self, model: LoadableModel) -> "list[LazyBackend] | None":
        """The models to unload for another one; None when those in use leave no room."""
        by_name = {backend.card.id: backend for backend in self.backends if backend.is_loaded}
        free = self._free_bytes(sum(backend.model.num_bytes for backend in by_name.values()))
        names = to_unload([backend.resident for backend in by_name.values()], model.num_bytes, free)
        return None if names is None else [by_name[name] for name in names]

    async def load(self, model: LoadableModel, leaving: list[LocalBackend]) -> LocalBackend:
        """Load a model on another thread, after the end of those whose place it takes; one at a time."""
        async with self._lock:
            while leaving:
                await leaving.pop().close()
            begin = time.monotonic()
            await asyncio.to_thread(return_freed_memory)
            backend = await asyncio.to_thread(model.load)
            log.info("%s was loaded in %.1f s", model.name, time.monotonic() - begin)
            return backend


class LazyBackend:
    """A model in this process, in memory while it is used or nobody needs the room. On one event loop."""

    def __init__(self, model: LoadableModel, memory: ModelMemory) -> None:
        self.model, self._memory = model, memory
        self._card = ModelCard(id=model.name, max_model_len=model.max_model_len, created_s=int(time.time()))
        self._backend: LocalBackend | None = None
        self._loading: asyncio.Task[LocalBackend | None] | None = None
        self._num_open = 0
        self._last_use_s = 0.0
        memory.add(self)

    @property
    def card(self) -> ModelCard:
        return self._card

    @property
    def local(self) -> LocalBackend | None:
        """The backend of the model while it is in memory."""
        return self._backend

    @property
    def is_loaded(self) -> bool:
        """Return whether the model has its memory, or is about to take it."""
        return self._backend is not None or self._loading is not None

    @property
    def resident(self) -> Resident:
        is_idle = not self._num_open and self._loading is None
        return Resident(
            name=self._card.id,
            num_bytes=self.model.num_bytes,
            is_idle=is_idle,
            last_use_s=self._last_use_s,
        )

    @property
    def is_healthy(self) -> bool:
        return self._backend is None or self._backend.is_healthy

    def load(self) -> None:
        """Load the model before the event loop runs. Raises ShoestringError."""
        self._backend = self.model.load()

    def start(self) -> None:
        if self._backend is not None:
            self._begin(self._backend)

    def _begin(self, backend: LocalBackend) -> None:
        backend.start()
        if self._memory.yields:
            backend.set_yields(True)

    async def close(self) -> None:
        if self._loading is not None:
            await asyncio.wait((self._loading,))
        if self._backend is not None:
            await self._backend.close()

    async def tokenize(self, request: BackendRequest) -> tuple[int, ...]:
        return (await self._prompt(request)).token_ids

    async def detokenize(self, token_ids: Sequence[int]) -> str:
        if self.model.tokenizer is None:
            raise RequestError("invalid", "this model has no tokenizer")
        return self.model.tokenizer.decode(token_ids)

    async def prepare(self, request: BackendRequest) -> Work:
        backend, work = self._backend, None
        if backend is not None:
            work = await backend.prepare(request)
            length, most = work.prompt_tokens, work.max_tokens
        else:
            prompt = await self._prompt(request)
            length = len(prompt.token_ids)
            most = most_tokens(prompt.sampling, length, self._card.max_model_len)

        async def start() -> AsyncGenerator[Delta]:
            deltas = self._deltas(request, work if backend is self._backend else None)
            await anext(deltas)  # from here on closing the deltas ends the use of the model
            return deltas

        return Work(model=self._card.id, prompt_tokens=length, max_tokens=most, start=start)

    async def _deltas(self, request: BackendRequest, work: Work | None) -> AsyncGenerator[Delta]:
        """An empty delta, and those of the reply; `work` is the request as the loaded model prepared it."""
        self.ensure_loading()
        self._num_open += 1
        try:
            yield Delta()
            if work is None:
                work = await (await self._loaded()).prepare(request)
            async with aclosing(await work.start()) as deltas:
                async for delta in deltas:
                    yield delta
        finally:
            self._num_open -= 1
            self._last_use_s = time.monotonic()

    def _begin_to_load(self) -> None:
        """Take the place of models that are out of use. Raises RequestError when there is none."""
        others = self._memory.to_unload(self.model)
        if others is None:
            sentence = f"{self._card.id} is not loaded, and the models in use leave no memory for it"
            raise RequestError(
                "overloaded", f"{sentence}; try again in {RETRY_S:.0f} s", retry_after_s=RETRY_S
            )
        leaving = [backend for other in others if (backend := other.release()) is not None]
        self._loading = asyncio.ensure_future(self._load(leaving))

    def ensure_loading(self) -> None:
        """Begin to load the model, if it is not loaded. Raises RequestError when there is no room."""
        if not self.is_loaded:
            self._begin_to_load()

    def release(self) -> LocalBackend | None:
        """Give the loaded model away, to be closed."""
        backend, self._backend = self._backend, None
        return backend

    async def _load(self, leaving: list[LocalBackend]) -> LocalBackend | None:
        """The model in memory; None, and a line in the log, when it cannot be loaded."""
        try:
            backend = await self._memory.load(self.model, leaving)
            self._begin(backend)
            self._backend = backend
            return backend
        except ShoestringError as error:
            log.error("%s could not be loaded: %s", self._card.id, error)
        except Exception:
            log.exception("%s could not be loaded", self._card.id)
        finally:
            self._loading = None
        return None

    async def _loaded(self) -> LocalBackend:
        """The model when it is in memory. Raises RequestError when it cannot be loaded."""
        backend = self._backend
        if backend is None and self._loading is not None:
            backend = await asyncio.shield(self._loading)  # a client that leaves ends it for nobody
        if backend is None:
            sentence = f"{self._card.id} could not be loaded; the server's log says why"
            raise RequestError("overloaded", sentence, retry_after_s=RETRY_S)
        return backend

    async def _prompt(self, request: BackendRequest) -> EnginePrompt:
        return await asyncio.to_thread(engine_prompt, request, self.model.tokenizer, self.model.template)
