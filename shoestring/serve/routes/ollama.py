"""Routes of Ollama's API: chat, generate, and the lists that local tools look for first."""

import json
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

import shoestring
from shoestring.serve.audience import Audience, audience
from shoestring.serve.backends.errors import RequestError
from shoestring.serve.backends.lazy import LazyBackend
from shoestring.serve.backends.reply import Reply
from shoestring.serve.backends.request import BackendRequest
from shoestring.serve.dialects.ollama import (
    OllamaChatRequest,
    OllamaFields,
    OllamaGenerateRequest,
    OllamaLines,
    chat_request,
    generate_request,
    loaded,
)
from shoestring.serve.dialects.ollama_schema import (
    LATEST,
    OllamaChat,
    OllamaGeneration,
    OllamaModels,
    OllamaProcesses,
    OllamaShow,
    OllamaShowRequest,
    Version,
    list_entry,
    process_entry,
    show_entry,
)
from shoestring.serve.dialects.schema import OllamaError, errors, whole, whole_or_stream
from shoestring.serve.live import LiveStream, unless_gone
from shoestring.serve.routes.parts import TheCaller, TheService
from shoestring.serve.service import Service

LINES = "application/x-ndjson"

router = APIRouter(tags=["Ollama"], responses=errors(OllamaError))


@router.post("/api/chat", responses=whole_or_stream(OllamaChat, LINES))
@audience(Audience.KEY)
async def chat(body: OllamaChatRequest, request: Request, caller: TheCaller, service: TheService) -> Response:
    """Answer a conversation. Without messages it says that the model is loaded."""
    model = _untagged(service, body.model)
    if not body.messages:
        service.backend(model)
        return JSONResponse(loaded(body.model, is_chat=True))
    salt = caller.cache_salt(None)
    work = chat_request(body, service.sampling(model), cache_salt=salt)
    reply = await unless_gone(request, service.open(caller, model, work))
    return await _answer(reply, body, request, is_chat=True)


@router.post("/api/generate", responses=whole_or_stream(OllamaGeneration, LINES))
@audience(Audience.KEY)
async def generate(
    body: OllamaGenerateRequest, request: Request, caller: TheCaller, service: TheService
) -> Response:
    """Answer a prompt. Without one it says that the model is loaded."""
    model = _untagged(service, body.model)
    if not body.prompt:
        service.backend(model)
        return JSONResponse(loaded(body.model, is_chat=False))
    salt = caller.cache_salt(None)
    work: BackendRequest = generate_request(body, service.sampling(model), cache_salt=salt)
    reply = await unless_gone(request, service.open(caller, model, work))
    return await _answer(reply, body, request, is_chat=False)


@router.get("/api/tags", responses=whole(OllamaModels))
@audience(Audience.KEY)
async def tags(caller: TheCaller, service: TheService) -> dict[str, Any]:
    """List the models."""
    cards = [backend.card for backend in service.backends.values()]
    return {"models": [list_entry(card.id, card.created_s) for card in cards]}


@router.get("/api/ps", responses=whole(OllamaProcesses))
@audience(Audience.KEY)
async def processes(caller: TheCaller, service: TheService) -> dict[str, Any]:
    """List the models of this process that are in memory."""
    lazy = [backend for backend in service.backends.values() if isinstance(backend, LazyBackend)]
    return {
        "models": [
            process_entry(backend.card.id, backend.model.num_bytes)
            for backend in lazy
            if backend.local is not None
        ]
    }


@router.post("/api/show", responses=whole(OllamaShow))
@audience(Audience.KEY)
async def show(body: OllamaShowRequest, caller: TheCaller, service: TheService) -> dict[str, Any]:
    """Show a model: its context and what it can do."""
    backend = service.backend(_untagged(service, body.model or body.name))
    has_chat = not isinstance(backend, LazyBackend) or backend.model.template is not None
    return show_entry(backend.card, has_chat=has_chat)


@router.get("/api/version", responses=whole(Version))
@audience(Audience.ANYONE)
async def version() -> dict[str, str]:
    """The version of this program."""
    return {"version": shoestring.__version__}


def _untagged(service: Service, model: str) -> str:
    """The name of a model here: Ollama's clients add :latest to a name without a tag."""
    is_known = model in service.backends or model in service.aliases
    return model if is_known else model.removesuffix(LATEST)


async def _answer(reply: Reply, body: OllamaFields, request: Request, *, is_chat: bool) -> Response:
    lines = OllamaLines(reply.model, is_chat=is_chat, start_s=time.monotonic())
    if body.stream is not False:
        return LiveStream(_stream(reply, lines), media_type=LINES)

    async def collect() -> list[dict[str, Any]]:
        return [line async for delta in reply.deltas for line in lines.push(delta, time.monotonic())]

    return JSONResponse(lines.whole(await unless_gone(request, collect())))


async def _stream(reply: Reply, lines: OllamaLines) -> AsyncGenerator[bytes]:
    try:
        async with aclosing(reply.deltas) as deltas:
            async for delta in deltas:
                for line in lines.push(delta, time.monotonic()):
                    yield json.dumps(line, ensure_ascii=False).encode() + b"\n"
    except RequestError as error:
        yield json.dumps({"error": str(error)}).encode() + b"\n"
