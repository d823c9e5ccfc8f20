"""Routes of OpenAI's responses, which Codex speaks; nothing is remembered between two of them."""

import json
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from shoestring.serve.audience import Audience, audience
from shoestring.serve.backends.errors import RequestError
from shoestring.serve.backends.reply import Reply
from shoestring.serve.caller import Caller
from shoestring.serve.dialects.openai_fields import ignored_fields
from shoestring.serve.dialects.responses_reply import Event, ResponseEvents
from shoestring.serve.dialects.responses_request import (
    NEUTRAL_VALUES,
    WITHOUT_EFFECT,
    ResponsesRequest,
    chat_request,
)
from shoestring.serve.dialects.responses_schema import OpenAIResponse
from shoestring.serve.dialects.schema import OpenAIError, errors, whole_or_stream
from shoestring.serve.live import event_stream, sse, unless_gone
from shoestring.serve.routes.parts import TheCaller, TheService, ignored_header
from shoestring.serve.service import Service

router = APIRouter(tags=["OpenAI"], responses=errors(OpenAIError))


@router.post("/v1/responses", responses=whole_or_stream(OpenAIResponse))
@audience(Audience.KEY)
async def create_response(
    body: ResponsesRequest, request: Request, caller: TheCaller, service: TheService
) -> Response:
    """Answer a conversation."""
    return await answer(body, request, caller, service)


async def answer(body: ResponsesRequest, request: Request, caller: Caller, service: Service) -> Response:
    """The reply to a request, streamed or whole; both are made of the same items."""
    chat = chat_request(body, service.sampling(body.model), cache_salt=caller.cache_salt(None))
    headers = ignored_header(ignored_fields(body, (*WITHOUT_EFFECT, *NEUTRAL_VALUES)))
    reply: Reply = await unless_gone(request, service.open(caller, body.model, chat))
    events = ResponseEvents(body, reply.model)
    if body.stream:
        return event_stream(_events(reply, events), headers)

    async def collect() -> dict[str, Any]:
        async for delta in reply.deltas:
            for _ in events.push(delta):
                pass
        return list(events.finish())[-1]["response"]  # type: ignore[no-any-return]

    return JSONResponse(await unless_gone(request, collect()), headers=headers)


async def _events(reply: Reply, events: ResponseEvents) -> AsyncGenerator[bytes]:
    try:
        yield _sse(events.begin())
        async with aclosing(reply.deltas) as deltas:
            async for delta in deltas:
                if data := _sse(events.push(delta)):
                    yield data
        yield _sse(events.finish())
    except RequestError as error:
        yield _sse(events.fail(str(error)))


def _sse(events: Iterable[Event]) -> bytes:
    return b"".join(sse(json.dumps(event, ensure_ascii=False), event["type"]) for event in events)
