"""Work for a client that may leave: a reply or a stream is cancelled as soon as the connection ends."""

import asyncio
from collections.abc import AsyncGenerator, Coroutine, Mapping
from contextlib import aclosing, suppress
from typing import Any

from fastapi.sse import format_sse_event
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

KEEP_ALIVE_S = 5.0
"""A comment is sent when no event came for so long, and at twice that at the latest: some clients give up
after 20."""
KEEP_ALIVE = b": keep-alive\n\n"


class ClientGone(Exception):
    """The client closed the connection before the reply was complete."""


async def unless_gone(request: Request, work: Coroutine[Any, Any, Any]) -> Any:
    """The result of `work`, which is cancelled when the client leaves; raises ClientGone then.

    The request's body must have been read.
    """
    task = asyncio.ensure_future(work)
    departure = asyncio.ensure_future(_disconnect(request.receive))
    try:
        await asyncio.wait((task, departure), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientGone
        return task.result()
    finally:
        await _cancel(task, departure)


class LiveStream(Response):
    """Parts of a reply as they come; ends when the client leaves."""

    def __init__(
        self,
        parts: AsyncGenerator[bytes],
        media_type: str,
        headers: Mapping[str, str] | None = None,
        *,
        comment: bytes = b"",
    ) -> None:
        """`comment` is sent from time to time while no part comes, if the media type has comments."""
        live = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}  # no proxy may collect the parts
        super().__init__(None, media_type=media_type, headers={**(headers or {}), **live})
        del self.headers["content-length"]
        self._parts, self._comment = parts, comment
        self._is_silent = True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        sending = asyncio.ensure_future(self._send(send))
        departure = asyncio.ensure_future(_disconnect(receive))
        try:
            await asyncio.wait((sending, departure), return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                sending.result()
        finally:
            await _cancel(sending, departure)

    async def _send(self, send: Send) -> None:
        """Send the head at once, so that no client waits for a long prompt without a sign of life."""
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        comments = asyncio.ensure_future(self._send_comments(send))
        try:
            async with aclosing(self._parts) as parts:
                async for part in parts:
                    self._is_silent = False
                    await send({"type": "http.response.body", "body": part, "more_body": True})
        finally:
            await _cancel(comments)
        await send({"type": "http.response.body", "body": b""})

    async def _send_comments(self, send: Send) -> None:
        """Send a comment after each KEEP_ALIVE_S in which no part came, by the clock."""
        while self._comment:
            self._is_silent = True
            await asyncio.sleep(KEEP_ALIVE_S)
            if self._is_silent:
                await send({"type": "http.response.body", "body": self._comment, "more_body": True})


def event_stream(events: AsyncGenerator[bytes], headers: Mapping[str, str] | None = None) -> LiveStream:
    """A stream of server-sent events, with comments while none come."""
    return LiveStream(events, "text/event-stream", headers, comment=KEEP_ALIVE)


def sse(data: str, event: str | None = None) -> bytes:
    """One server-sent event."""
    return format_sse_event(data_str=data, event=event)


async def _disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _cancel(*tasks: "asyncio.Future[Any]") -> None:
    """Cancel tasks and wait for their end."""
    for task in tasks:
        task.cancel()
    for task in tasks:
        with suppress(asyncio.CancelledError, Exception):
            await task
