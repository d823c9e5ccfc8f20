"""Answers to requests with an Idempotency-Key: a repetition gets the same answer, without a second charge."""

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shoestring.serve.backends.errors import RequestError
from shoestring.serve.caller import Caller

KEPT_S = 600.0
MAX_BYTES = 64 << 20
"""All kept answers together; the oldest are forgotten first."""
MAX_ANSWER_BYTES = 1 << 20
OBJECT_BYTES = 1000
FIELD = "Idempotency-Key"
REPLAYED = (b"idempotent-replayed", b"true")


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A whole answer, kept in memory alone: prompts and answers are never in the database."""

    request: bytes
    """A digest of the request."""
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes
    time_s: float

    @property
    def num_bytes(self) -> int:
        """Bytes of memory."""
        return len(self.body) + OBJECT_BYTES


class Answers:
    """The answers of the last minutes to requests that were paid for. Use it on one event loop.

    What is not here any more, was streamed or was answered by another process is for the ledger to refuse.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, max_bytes: int = MAX_BYTES) -> None:
        self._clock, self._max_bytes = clock, max_bytes
        self._answers: OrderedDict[bytes, Answer] = OrderedDict()
        self._num_bytes = 0
        self._under_way: set[bytes] = set()

    async def run(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the app for a request with a key, or send the answer that it had before.

        Raises RequestError when a request with this key is under way, or was another one.
        """
        caller: Caller = scope["caller"]
        name = hashlib.sha256(f"{caller.account_id}\0{caller.idempotency_key}".encode()).digest()
        if name in self._under_way:
            sentence = "a request with this Idempotency-Key is under way; ask again when it has ended"
            raise RequestError("conflict", sentence, field=FIELD, retry_after_s=1)
        self._under_way.add(name)
        try:
            record = _Record(scope, receive, send)
            if (answer := self._find(name)) is not None:
                await _repeat(answer, record, send)
                return
            await app(scope, record.receive, record.send)
            if record.is_whole and caller.costs:
                self._keep(name, record.answer(self._clock()))
        finally:
            self._under_way.discard(name)

    def _find(self, name: bytes) -> Answer | None:
        while self._answers and next(iter(self._answers.values())).time_s <= self._clock() - KEPT_S:
            self._forget()
        return self._answers.get(name)

    def _keep(self, name: bytes, answer: Answer) -> None:
        self._answers[name] = answer
        self._num_bytes += answer.num_bytes
        while self._num_bytes > self._max_bytes:
            self._forget()

    def _forget(self) -> None:
        self._num_bytes -= self._answers.popitem(last=False)[1].num_bytes


class _Record:
    """A request and its answer as they pass."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._receive, self._send = receive, send
        self._request = hashlib.sha256(f"{scope['method']} {scope['path']}\n".encode())
        self._start: Message | None = None
        self._body, self._num_parts = b"", 0
        self.is_whole = False
        """The answer is good, and came in one piece that is not too long."""

    async def receive(self) -> Message:
        message = await self._receive()
        self._request.update(message.get("body", b""))
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._start = {**message, "headers": list(message["headers"])}
        elif self._start is not None and self._start["status"] == 200:
            self._body, self._num_parts = message.get("body", b""), self._num_parts + 1
            is_last = not message.get("more_body", False)
            self.is_whole = is_last and self._num_parts == 1 and len(self._body) <= MAX_ANSWER_BYTES
        await self._send(message)

    @property
    def request(self) -> bytes:
        """A digest of the request until now."""
        return self._request.digest()

    def answer(self, time_s: float) -> Answer:
        """The whole answer."""
        assert self._start is not None
        headers = tuple(self._start["headers"])
        return Answer(request=self.request, headers=headers, body=self._body, time_s=time_s)


async def _repeat(answer: Answer, record: _Record, send: Send) -> None:
    """Send an answer again, for the same request."""
    while (message := await record.receive())["type"] == "http.request":
        if not message.get("more_body"):
            break
    else:
        return  # the client has left
    if record.request != answer.request:
        sentence = "this Idempotency-Key came with another request before; use a new key for a new request"
        raise RequestError("conflict", sentence, field=FIELD)
    await send({"type": "http.response.start", "status": 200, "headers": [*answer.headers, REPLAYED]})
    await send({"type": "http.response.body", "body": answer.body})
