"""Servers that speak OpenAI's API and do what a test says: answer, refuse, hang, break off."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Any

import pytest

Writer = asyncio.StreamWriter
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"


class FarServer:
    """A server on loopback, in the test's event loop."""

    def __init__(self, name: str) -> None:
        self.name, self.port = name, 0
        self.models = ["m"]
        self.status = 200
        """Of replies to requests for tokens."""
        self.num_tokens = 3
        self.silent_after: int | None = None
        """Tokens after which the stream goes on without any."""
        self.broken_after: int | None = None
        """Tokens after which the connection breaks off."""
        self.requests: list[dict[str, Any]] = []
        """Bodies of requests for tokens, probes left out."""
        self.num_probes = 0
        self.num_open = 0
        """Requests for tokens whose connection is open."""
        self._server: asyncio.Server | None = None
        self._writers: set[Writer] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    async def up(self) -> None:
        """Listen, on the same port as before."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    def kill(self) -> None:
        """Close the port and break off every connection, as a process that is killed does."""
        assert self._server is not None
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: Writer) -> None:
        self._writers.add(writer)
        with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            if head.startswith("GET"):
                await self._send_json(writer, 200, {"data": [{"id": name} for name in self.models]})
            else:
                length = int(head.lower().partition("content-length:")[2].split()[0])
                await self._answer(json.loads(await reader.readexactly(length)), reader, writer)
        self._writers.discard(writer)
        writer.close()

    async def _answer(self, body: dict[str, Any], reader: asyncio.StreamReader, writer: Writer) -> None:
        is_probe = body.get("max_tokens") == 1
        self.num_probes += is_probe
        if not is_probe:
            self.requests.append(body)
        if self.status != 200:
            await self._send_json(writer, self.status, {"error": {"message": "not now"}})
            return
        self.num_open += 1
        talk = asyncio.ensure_future(self._stream(writer, 1 if is_probe else self.num_tokens))
        leave = asyncio.ensure_future(reader.read())
        await asyncio.wait((talk, leave), return_when=asyncio.FIRST_COMPLETED)
        self.num_open -= 1
        for task in (talk, leave):
            task.cancel()

    async def _stream(self, writer: Writer, num_tokens: int) -> None:
        writer.write(HEAD)
        for number in range(num_tokens):
            if number == self.silent_after:
                await asyncio.sleep(3600)
            if number == self.broken_after:
                writer.transport.abort()
                return
            self._event(writer, {"choices": [{"index": 0, "delta": {"content": f"{self.name}{number} "}}]})
            await asyncio.sleep(0)
        self._event(writer, {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
        writer.write(b"data: [DONE]\n\n")
        await writer.drain()

    @staticmethod
    def _event(writer: Writer, data: dict[str, Any]) -> None:
        writer.write(b"data: " + json.dumps(data).encode() + b"\n\n")

    @staticmethod
    async def _send_json(writer: Writer, status: int, data: dict[str, Any]) -> None:
        body = json.dumps(data).encode()
        head = f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        writer.write(head.encode() + body)
        await writer.drain()


@pytest.fixture(scope="session")
def far_servers() -> Callable[[int], AbstractAsyncContextManager[list[FarServer]]]:
    """Starts so many servers, called a, b, c, ..."""

    @asynccontextmanager
    async def start(count: int) -> AsyncIterator[list[FarServer]]:
        servers = [FarServer("abc"[number]) for number in range(count)]
        for server in servers:
            await server.up()
        try:
            yield servers
        finally:
            for server in servers:
                server.kill()
            await asyncio.sleep(0)

    return start


@pytest.fixture(scope="session")
def until() -> Callable[[Callable[[], bool]], Any]:
    """Waits for a condition, at most 20 s."""

    async def wait(condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not condition():
                await asyncio.sleep(0.005)

    return wait
