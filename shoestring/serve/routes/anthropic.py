"""Routes of Anthropic's API: messages, and the number of their tokens."""

import json
from collections import deque
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from shoestring.serve.audience import Audience, audience
from shoestring.serve.backends.errors import RequestError
from shoestring.serve.backends.reply import Reply
from shoestring.serve.caller import Caller
from shoestring.serve.dialects.anthropic_reply import Event, MessageEvents
from shoestring.serve.dialects.anthropic_request import (
    WITHOUT_EFFECT,
    CountTokensRequest,
    MessagesRequest,
    chat_request,
    shows_thinking,
    user_id,
)
from shoestring.serve.dialects.anthropic_schema import AnthropicMessage, TokenCount
from shoestring.serve.dialects.errors import anthropic_error
from shoestring.serve.dialects.openai_fields import ignored_fields
from shoestring.serve.dialects.schema import AnthropicError, errors, whole, whole_or_stream
from shoestring.serve.live import event_stream, sse, unless_gone
from shoestring.serve.routes.parts import TheCaller, TheService, ignored_header
from shoestring.serve.service import Service

router = APIRouter(tags=["Anthropic"], responses=errors(AnthropicError))


@router.post("/v1/messages", responses=whole_or_stream(AnthropicMessage))
@audience(Audience.KEY)
async def create_message(
    body: MessagesRequest, request: Request, caller: TheCaller, service: TheService
) -> Response:
    """Answer a conversation."""
    return await answer(body, request, caller, service)


@router.post("/v1/messages/count_tokens", responses=whole(TokenCount))
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
    events = MessageEvents(reply.model, reply.prompt_tokens, shows_thinking=shows_thinking(body))
    if body.stream:
        return event_stream(_events(reply, events), headers)

    async def collect() -> dict[str, Any]:
        async for delta in reply.deltas:
            deque(events.push(delta), maxlen=0)
        deque(events.finish(), maxlen=0)
        return events.message

    return JSONResponse(await unless_gone(request, collect()), headers=headers)


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
