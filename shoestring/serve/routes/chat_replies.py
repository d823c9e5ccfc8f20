"""Replies of chat completions and completions, for the routes of OpenAI's and DeepSeek's API."""

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any

from fastapi import Request, Response
from fastapi.responses import JSONResponse

from shoestring.serve.backends.errors import RequestError
from shoestring.serve.backends.reply import Delta, Reply, fold
from shoestring.serve.caller import Caller
from shoestring.serve.dialects import openai_chat_request, openai_completions
from shoestring.serve.dialects.errors import openai_error
from shoestring.serve.dialects.openai_chat_reply import ChatChunks, chat_completion, event
from shoestring.serve.dialects.openai_chat_request import ChatCompletionRequest
from shoestring.serve.dialects.openai_completions import CompletionRequest, TextChunks
from shoestring.serve.dialects.openai_fields import ignored_fields
from shoestring.serve.live import event_stream, sse, unless_gone
from shoestring.serve.routes.parts import ignored_header
from shoestring.serve.routes.slow_json import Making, slow_json
from shoestring.serve.service import Service


async def answer_chat(
    body: ChatCompletionRequest, request: Request, caller: Caller, service: Service, *, deepseek: bool = False
) -> Response:
    """The reply to a conversation; with `deepseek` the usage of a stream is on the last choice, and blank
    lines come before a whole reply that takes long."""
    salt = caller.cache_salt(body.user_id)
    chat = openai_chat_request.chat_request(body, service.sampling(body.model), cache_salt=salt)
    names = (*openai_chat_request.WITHOUT_EFFECT, *openai_chat_request.NEUTRAL_VALUES)
    headers = ignored_header(ignored_fields(body, names))
    reply: Reply = await unless_gone(request, service.open(caller, body.model, chat))
    if body.stream:
        chunks = ChatChunks(body, reply.model, usage_on_choice=deepseek)
        return event_stream(_chat_events(reply, chunks), headers)

    async def whole() -> dict[str, Any]:
        return chat_completion(await fold(reply.deltas, body.n or 1), reply.model)

    return await _whole_reply(request, whole(), headers, deepseek=deepseek)


async def answer_text(
    body: CompletionRequest, request: Request, caller: Caller, service: Service, *, deepseek: bool = False
) -> Response:
    """The reply to one text or several."""
    salt = caller.cache_salt(body.user_id)
    requests = openai_completions.text_requests(body, service.sampling(body.model), cache_salt=salt)
    headers = ignored_header(ignored_fields(body, tuple(openai_completions.NEUTRAL_VALUES)))

    async def open_all() -> list[Reply]:
        return [await service.open(caller, body.model, each) for each in requests]

    replies: list[Reply] = await unless_gone(request, open_all())
    if body.stream:
        chunks = TextChunks(body, replies[0].model, usage_on_choice=deepseek)
        return event_stream(_text_events(replies, chunks), headers)

    async def whole() -> dict[str, Any]:
        wholes = await asyncio.gather(*(fold(reply.deltas, body.n or 1) for reply in replies))
        return openai_completions.text_completion(wholes, replies[0].model)

    return await _whole_reply(request, whole(), headers, deepseek=deepseek)


async def _whole_reply(
    request: Request, whole: Making, headers: Mapping[str, str], *, deepseek: bool
) -> Response:
    if deepseek:
        return await slow_json(request, whole, headers)
    return JSONResponse(await unless_gone(request, whole), headers=dict(headers))


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


async def _text_events(replies: Sequence[Reply], chunks: TextChunks) -> AsyncGenerator[bytes]:
    """The events of one or more streamed completions, in the order in which they come."""
    try:
        async with aclosing(merged([reply.deltas for reply in replies])) as deltas:
            async for number, delta in deltas:
                for chunk in chunks.push(delta, number):
                    yield sse(event(chunk))
        for chunk in chunks.finish():
            yield sse(event(chunk))
    except RequestError as error:
        yield sse(event(openai_error(error)))
    yield sse("[DONE]")


async def merged(streams: Sequence[AsyncGenerator[Delta]]) -> AsyncGenerator[tuple[int, Delta]]:
    """The deltas of several streams as they come, each with the number of its stream."""
    deltas: asyncio.Queue[tuple[int, Delta | Exception | None]] = asyncio.Queue()

    async def forward(number: int, stream: AsyncGenerator[Delta]) -> None:
        try:
            async with aclosing(stream):
                async for delta in stream:
                    deltas.put_nowait((number, delta))
            deltas.put_nowait((number, None))
        except Exception as error:
            deltas.put_nowait((number, error))

    tasks = [asyncio.ensure_future(forward(number, stream)) for number, stream in enumerate(streams)]
    try:
        num_open = len(tasks)
        while num_open:
            number, delta = await deltas.get()
            if isinstance(delta, Exception):
                raise delta
            if delta is None:
                num_open -= 1
            else:
                yield number, delta
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
