"""Routes of OpenAI's API: chat completions and models."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from shoestring.serve.audience import Audience, audience
from shoestring.serve.backends.errors import RequestError
from shoestring.serve.backends.reply import Reply, fold
from shoestring.serve.dialects.errors import openai_error
from shoestring.serve.dialects.openai_chat import (
    NEUTRAL_VALUES,
    WITHOUT_EFFECT,
    ChatChunks,
    ChatCompletionRequest,
    chat_completion,
    chat_request,
    event,
)
from shoestring.serve.dialects.openai_fields import ignored_fields
from shoestring.serve.live import EventStream, sse, unless_gone
from shoestring.serve.routes.parts import TheCaller, TheService, ignored_header
from shoestring.serve.service import Service

router = APIRouter(tags=["OpenAI"])


@router.post("/v1/chat/completions")
@audience(Audience.KEY)
async def create_chat_completion(
    body: ChatCompletionRequest, request: Request, caller: TheCaller, service: TheService
) -> Response:
    """Answer a conversation."""
    salt = caller.cache_salt(body.user_id)
    chat = chat_request(body, service.sampling(body.model), cache_salt=salt)
    headers = ignored_header(ignored_fields(body, (*WITHOUT_EFFECT, *NEUTRAL_VALUES)))
    reply: Reply = await unless_gone(request, service.open(caller, body.model, chat))
    if body.stream:
        return EventStream(_chat_events(reply, ChatChunks(body, reply.model)), headers)
    whole = await unless_gone(request, fold(reply.deltas, body.n or 1))
    return JSONResponse(chat_completion(whole, reply.model), headers=headers)


async def _chat_events(reply: Reply, chunks: ChatChunks) -> AsyncGenerator[bytes]:
    """The events of a streamed reply; an error on the way is an event too."""
    try:
        async with aclosing(reply.deltas) as deltas:
            async for delta in deltas:
                for chunk in chunks.push(delta):
                    yield sse(event(chunk))
        for chunk in chunks.finish():
            yield sse(event(chunk))
    except RequestError as error:
        yield sse(event(openai_error(error)))
    yield sse("[DONE]")


@router.get("/v1/models")
@audience(Audience.KEY)
async def list_models(caller: TheCaller, service: TheService) -> dict[str, Any]:
    """List the models."""
    return {"object": "list", "data": [_model(service, name) for name in service.backends]}


@router.get("/v1/models/{model:path}")
@audience(Audience.KEY)
async def retrieve_model(model: str, caller: TheCaller, service: TheService) -> dict[str, Any]:
    """One model; its name may have slashes."""
    return _model(service, model)


def _model(service: Service, name: str) -> dict[str, Any]:
    card = service.backend(name).card
    return {
        "id": card.id,
        "object": "model",
        "created": card.created_s,
        "owned_by": card.owned_by,
        "max_model_len": card.max_model_len,
    }
