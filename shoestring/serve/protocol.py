"""HTTP on one connection, with deadlines: uvicorn's protocol has none for slow clients."""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any, Literal, cast

import h11
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from shoestring.serve.admission.receipt import ReceiptLimits

Phase = Literal["idle", "head", "body", "reply", "closing"]


class TimelyProtocol(H11Protocol):
    """A connection that is closed when its client sends or reads too slowly.

    One timer for each connection: it looks at the deadline of the present phase, and is set anew when that
    has moved.
    """

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        limits: ReceiptLimits,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._parser = self.conn = _Parser(limits, self._on_event)
        self.timeout_keep_alive = limits.idle_s  # type: ignore[assignment]
        self._limits = limits
        self._phase: Phase = "head"
        self._start_s = 0.0
        """The beginning of the phase, by the loop's clock."""
        self._num_bytes = 0
        """Bytes of the request's body so far."""
        self._deadline_s: float | None = None
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._enter("head", self._limits.head_s)

    def connection_lost(self, exc: Exception | None) -> None:
        self._deadline_s = None
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._phase == "idle":
            self._enter("head", self._limits.head_s)
        super().data_received(data)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch(self.loop.time() + self._limits.reading_s)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._phase == "reply":
            self._deadline_s = None

    def on_response_complete(self) -> None:
        if self.transport.is_closing():
            self._enter("closing", self._limits.reading_s)
        else:
            self._enter("idle", None)
        super().on_response_complete()

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        self._enter("closing", self._limits.reading_s)

    def send_400_response(self, msg: str) -> None:
        """Answer bytes that are no request: 431 when the head is too long."""
        status = self._parser.status or 400
        self._end(status, msg if status == 400 else "The head is too long.")

    def _on_event(self, event: Any) -> None:
        """Follow the parser: a head, parts of a body, its end."""
        if isinstance(event, h11.Request):
            self._num_bytes = 0
            self._enter("body", min(self._limits.slow_s, self._limits.body_s))
        elif isinstance(event, h11.Data):
            self._num_bytes += len(event.data)
        elif isinstance(event, h11.EndOfMessage) and self._phase == "body":
            self._enter("reply", None)

    def _enter(self, phase: Phase, most_s: float | None) -> None:
        self._phase, self._start_s = phase, self.loop.time()
        if most_s is None:
            self._deadline_s = None
        else:
            self._watch(self._start_s + most_s)

    def _watch(self, deadline_s: float) -> None:
        """Set the deadline, and the timer if it would ring too late."""
        self._deadline_s = deadline_s
        if self._timer is not None and self._timer.when() > deadline_s:
            self._timer.cancel()
            self._timer = None
        if self._timer is None:
            self._timer = self.loop.call_at(deadline_s, self._ring)

    def _ring(self) -> None:
        self._timer = None
        if self._deadline_s is None:
            return
        if self.loop.time() < self._deadline_s:
            self._watch(self._deadline_s)
        elif self._phase == "body" and self._is_timely():
            self._watch(self.loop.time() + min(1.0, self._limits.slow_s))
        elif self._phase == "head" and not self.conn.trailing_data[0]:
            self.transport.abort()  # nothing came, so no answer is due
        elif self._phase in ("head", "body") and self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            self._end(408, "The request came too slowly.")
        else:
            self.transport.abort()

    def _is_timely(self) -> bool:
        """Whether a body comes fast enough; while the app is the slow one, it does."""
        passed_s = self.loop.time() - self._start_s
        is_fast = self._num_bytes >= passed_s * self._limits.least_bytes_per_s
        return self.flow.read_paused or (is_fast and passed_s < self._limits.body_s)

    def _end(self, status: int, sentence: str) -> None:
        """Answer in place of the app and close."""
        if self.transport.is_closing():
            return
        body = sentence.encode()
        headers = [
            ("content-type", "text/plain; charset=utf-8"),
            ("content-length", str(len(body))),
            ("connection", "close"),
        ]
        for event in (
            h11.Response(status_code=status, headers=headers, reason=b""),
            h11.Data(data=body),
            h11.EndOfMessage(),
        ):
            self.transport.write(self.conn.send(event) or b"")
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.transport.close()
        self._enter("closing", self._limits.reading_s)


class _Parser(h11.Connection):
    """A parser that refuses long heads, whole ones too, and tells what it has read."""

    def __init__(self, limits: ReceiptLimits, on_event: Callable[[Any], None]) -> None:
        super().__init__(h11.SERVER, max_incomplete_event_size=limits.head_bytes)
        self.status: int | None = None
        """The status that answers what could not be read."""
        self._limits, self._on_event = limits, on_event

    def next_event(self) -> Any:
        try:
            event = super().next_event()
        except h11.RemoteProtocolError as error:
            self.status = error.error_status_hint if error.error_status_hint != 400 else None
            raise
        if isinstance(event, h11.Request):
            size = len(event.target) + sum(len(name) + len(value) + 4 for name, value in event.headers)
            if size > self._limits.head_bytes or len(event.headers) > self._limits.headers:
                self.status = 431
                raise h11.RemoteProtocolError("the head is too long", error_status_hint=431)
        self._on_event(event)
        return event


def timely_protocol(limits: ReceiptLimits) -> type[asyncio.Protocol]:
    """The protocol for uvicorn's configuration, which calls it with its own arguments."""
    return cast(type[asyncio.Protocol], partial(TimelyProtocol, limits=limits))
