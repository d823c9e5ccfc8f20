"""Short conversations with the model that translates: a request may have many, a few at a time."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from shoestring.sampling_params import SamplingParams, StructuredOutputsParams
from shoestring.serve.backends.errors import RequestError
from shoestring.serve.backends.request import ChatRequest
from shoestring.serve.caller import Caller
from shoestring.serve.service import Service

MAX_OPEN = 4
"""Replies that are written for one request at the same time."""
TOKENS_PER_CHARACTER = 2
FURTHER_TOKENS = 256
"""Most tokens of a reply beyond those for its characters."""
THINKING_TOKENS = 4096
"""Tokens for the thinking of a model that thinks though it is told not to."""

Watcher = Callable[[str], None]
"""Gets a reply's text until now, each time it grows."""


class Chat:
    """The translating model, for one request of a caller."""

    def __init__(self, service: Service, caller: Caller, model: str) -> None:
        """Raises RequestError for a model that is not served."""
        self.model = model
        card = service.backend(model).card
        self.max_characters = min(max((card.max_model_len - FURTHER_TOKENS) // 3, 40), 2000)
        """The longest text for one reply: a third of the context, if each character is a token."""
        self._service, self._caller = service, caller
        self._places = asyncio.Semaphore(MAX_OPEN)
        self._thinking_tokens = 0
        self._opening = asyncio.Lock()  # the ledger numbers a request's replies as they are opened

    async def ask(
        self,
        instruction: str,
        *turns: str,
        choices: Sequence[str] = (),
        watch: Watcher | None = None,
    ) -> str:
        """The reply to turns of the user and the assistant; with `choices`, one of them.

        A model on another server may answer something else. Raises RequestError.
        """
        roles = ("user", "assistant")
        messages: list[Mapping[str, Any]] = [{"role": "system", "content": instruction}]
        messages += [{"role": roles[number % 2], "content": turn} for number, turn in enumerate(turns)]
        most = 16 if choices else TOKENS_PER_CHARACTER * len(turns[0]) + FURTHER_TOKENS
        sampling = SamplingParams(
            temperature=0.0,
            max_tokens=most,
            structured_outputs=StructuredOutputsParams(choice=tuple(choices)) if choices else None,
        )
        salt = self._caller.cache_salt(None)
        request = ChatRequest(messages=tuple(messages), sampling=sampling, thinking=False, cache_salt=salt)
        async with self._places:
            text, thinking = await self._reply(request, watch)
            if not text and thinking and not self._thinking_tokens:
                self._thinking_tokens = THINKING_TOKENS  # from now on, for each reply
                text, _ = await self._reply(request, watch)
        if not text:
            sentence = f"{self.model} gave no answer; set `translator` to a model that answers at once"
            raise RequestError("failed", sentence)
        return text

    async def _reply(self, request: ChatRequest, watch: Watcher | None) -> tuple[str, str]:
        """The text of a reply, and its thinking."""
        most = (request.sampling.max_tokens or 0) + self._thinking_tokens
        request = replace(request, sampling=replace(request.sampling, max_tokens=most))
        async with self._opening:
            reply = await self._service.open(self._caller, self.model, request)
        text = thinking = ""
        async with aclosing(reply.deltas) as deltas:
            async for delta in deltas:
                text, thinking = text + delta.text, thinking + delta.thinking
                if watch is not None and delta.text:
                    watch(text)
        return text.strip(), thinking
