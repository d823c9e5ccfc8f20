"""A whole reply that may take long: after a while the body begins with blank lines, as in DeepSeek's API."""

import asyncio
import json
from collections.abc import AsyncGenerator, Coroutine, Mapping
from typing import Any

from fastapi import Request, Response
from fastapi.responses import JSONResponse

from shoestring.serve.backends.errors import RequestError
from shoestring.serve.dialects.errors import openai_error
from shoestring.serve.live import LiveStream, unless_gone

PATIENCE_S = 10.0
"""Seconds without a byte after which a proxy or a client might give up."""

Body = dict[str, Any]
Making = Coroutine[Any, Any, Body]


async def slow_json(request: Request, work: Making, headers: Mapping[str, str]) -> Response:
    """The body that `work` gives. An error within PATIENCE_S has its status; a later one is the body."""
    task = asyncio.create_task(work)
    is_slow = False
    try:
        is_slow = await unless_gone(request, _is_slow(task))
    finally:
        if not is_slow:
            task.cancel()  # of no effect on a task that has ended
    if is_slow:
        return LiveStream(_blank_lines(task), "application/json", headers)
    return JSONResponse(task.result(), headers=dict(headers))


async def _is_slow(task: "asyncio.Task[Body]") -> bool:
    return not (await asyncio.wait((task,), timeout=PATIENCE_S))[0]


async def _blank_lines(task: "asyncio.Task[Body]") -> AsyncGenerator[bytes]:
    """Blank lines until the task has ended, and its result."""
    try:
        while not task.done():
            yield b"\n"
            await _is_slow(task)
        body = task.result()
    except RequestError as error:
        body = openai_error(error)
    finally:
        task.cancel()
    yield json.dumps(body, ensure_ascii=False).encode()
