"""The run of one answer: a request like any other, held and charged in its turn, but without a connection."""

import asyncio
import logging
import traceback
from collections.abc import Sequence
from contextlib import aclosing, suppress

from shoestring.serve.backends.errors import RequestError
from shoestring.serve.backends.reply import Reply
from shoestring.serve.backends.request import ChatRequest
from shoestring.serve.caller import Caller
from shoestring.serve.chats.answer import Answer
from shoestring.serve.chats.draft import WRITE_S, Draft
from shoestring.serve.dialects.openai_chat_request import ChatCompletionRequest, chat_request
from shoestring.serve.ledger.prices import decimal
from shoestring.serve.service import Service
from shoestring.serve.storage.database import DatabaseGone
from shoestring.serve.watch import Observer, course_of

log = logging.getLogger(__name__)

ROUTE = "/answers"
PLACE_S = 0.5
"""Seconds between two looks at the place in the queue."""
FAILURE = "the server failed; its log says why"


def chat_of(body: ChatCompletionRequest, caller: Caller, service: Service) -> ChatRequest:
    """The conversation of a request. Raises RequestError, also for what a chat's message cannot have."""
    if (body.n or 1) > 1 or body.tools or body.logprobs:
        raise RequestError("invalid", "an answer of a chat is one text: leave out n, tools and logprobs")
    salt = caller.cache_salt(body.user_id)
    return chat_request(body, service.sampling(body.model), cache_salt=salt)


class Run:
    """An answer from its begin to its end. Its `caller` has an ending of its own."""

    def __init__(self, service: Service, answer: Answer, draft: Draft | None, caller: Caller) -> None:
        self._service, self._answer, self._draft, self._caller = service, answer, draft, caller

    async def run(self, body: ChatCompletionRequest, observers: Sequence[Observer]) -> None:
        """Write the answer. Raises nothing: how it ended is in the answer."""
        finish_reason: str | None = None
        error: RequestError | None = None
        with course_of(ROUTE, self._caller.request_id, observers) as course:
            draft = asyncio.create_task(self._write())
            try:
                async with self._caller.ending:
                    await self._answer.work(self._take(body))
            except asyncio.CancelledError:
                finish_reason = self._answer.stop_reason
            except RequestError as refusal:
                error, finish_reason, course.status = refusal, "error", refusal.status
            except Exception as failure:
                place = "".join(traceback.format_tb(failure.__traceback__))  # the text may hold a prompt
                kind = type(failure).__name__
                log.error("answer %s failed: %s\n%s", self._caller.request_id, kind, place)
                error, finish_reason, course.status = RequestError("failed", FAILURE), "error", 500
            draft.cancel()
            await self._end(finish_reason, error)

    async def _take(self, body: ChatCompletionRequest) -> None:
        """Take in what the model says."""
        chat = chat_of(body, self._caller, self._service)
        reply = await self._service.open(self._caller, body.model, chat)
        self._answer.model = reply.model
        place = asyncio.create_task(self._look_at_place(reply))
        try:
            async with aclosing(reply.deltas) as deltas:
                async for delta in deltas:
                    self._answer.add(delta)
        finally:
            place.cancel()

    async def _look_at_place(self, reply: Reply) -> None:
        """Tell the place in the queue until the answer begins."""
        while True:
            self._answer.wait_at(reply.place())
            await asyncio.sleep(PLACE_S)

    async def _write(self) -> None:
        """Write what there is into the chat, again and again."""
        while self._draft is not None:
            await asyncio.sleep(WRITE_S)
            with suppress(DatabaseGone):
                if not await self._draft.write(self._answer):
                    self._answer.stop()

    async def _end(self, finish_reason: str | None, error: RequestError | None) -> None:
        """Write the end into the chat, then tell the readers; without a database, the other way round."""
        values = self._answer.end(finish_reason, error, self._cost())
        is_kept = self._draft is None or await self._draft.end(self._answer, values)
        self._answer.close()
        if self._draft is not None and not is_kept:
            await self._draft.end_later(self._answer, values)

    def _cost(self) -> dict[str, str]:
        """The cost that was charged, as Figures has it."""
        meter = self._service.meter
        if meter is None or meter.prices.is_free:
            return {}
        total = sum(cost.amount or 0 for cost in self._caller.costs)
        return {"cost": decimal(total), "currency": meter.prices.currency}
