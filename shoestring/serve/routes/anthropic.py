"""Routes of Anthropic's API: messages, and the number of their tokens."""

import json
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from shoestring.serve.audience import Audience, audience
from shoestring.serve.backends.errors import RequestError
from shoestring.serve.backends.reply import Reply, fold
from shoestring.serve.caller import Caller
from shoestring.serve.dialects.anthropic_reply import Event, MessageEvents, message
from shoestring.serve.dialects.anthropic_request import (
    WITHOUT_EFFECT,
    CountTokensRequest,
    MessagesRequest,
    chat_request,
    shows_thinking,
    user_id,
)
from shoestring.serve.dialects.errors import anthropic_error
from shoestring.serve.dialects.openai_fields import ignored_fields
from shoestring.serve.live import event_stream, sse, unless_gone
from shoestring.serve.routes.parts import TheCaller, TheService, ignored_header
from shoestring.serve.service import Service

router = APIRouter(tags=["Anthropic"])


@router.post("/v1/messages")
@audience(Audience.KEY)
async def create_message(
    body: MessagesRequest, request: Request, caller: TheCaller, service: TheService
) -> Response:
    """Answer a conversation."""
    return await answer(body, request, caller, service)


@router.post("/v1/messages/count_tokens")
@audience(Audience.KEY)
async def count_tokens(body: CountTokensRequest, caller: TheCaller, service: TheService) -> dict[str, int]:
    """Count the tokens of a conversation."""
    return await count(body, service)


async def answer(body: MessagesRequest, request: Request, caller: Caller, service: Service) -> Response:
    """The reply to a conversation, streamed or whole."""
    salt = caller.cache_salt(user_id(body))
    chat = chat_request(body, service.sampling(body.model), cache_salt=salt)
    headers = ignored_header(ignored_fields(body, WITHOUT_EFFECT))
    reply: Reply = await unless_gone(request, service.open(caller, body.model, chat))
    is_shown = shows_thinking(body)
    if body.stream:
        events = MessageEvents(reply.model, reply.prompt_tokens, shows_thinking=is_shown)
        return event_stream(_events(reply, events), headers)
    whole = await unless_gone(request, fold(reply.deltas, 1))
    return JSONResponse(message(whole, reply.model, shows_thinking=is_shown), headers=headers)


async def count(body: CountTokensRequest, service: Service) -> dict[str, int]:
    """The number of a conversation's tokens."""
    chat = chat_request(body, {}, cache_salt="")
    return {"input_tokens": len(await service.backend(body.model).tokenize(chat))}


async def _events(reply: Reply, events: MessageEvents) -> AsyncGenerator[bytes]:
    """The events of a streamed reply; an error on the way is an event too."""
    try:
        yield _sse(events.begin())
        async with aclosing(reply.deltas) as deltas:
            async for delta in deltas:
                if data := _sse(events.push(delta)):
                    yield data
        yield _sse(events.finish())
    except RequestError as error:
        yield _sse([anthropic_error(error)])


def _sse(events: Iterable[Event | dict[str, Any]]) -> bytes:
    return b"".join(sse(json.dumps(event, ensure_ascii=False), event["type"]) for event in events)
