"""The course of each request: when it came, began to be answered, had its first token, and ended."""

import time
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shoestring.serve.backends.reply import Delta, Usage, Work

NO_ROUTE = "other"
"""The route of a request for which there is none: its path is the client's text and goes nowhere."""


@dataclass(kw_only=True)
class Course:
    """One request. Times are seconds since 1970; None for what has not happened."""

    route: str = NO_ROUTE
    """The path as it is declared, such as /v1/models/{model}."""
    status: int = 499
    """Of the reply; 499 when the client left before it began."""
    request_id: str = ""
    trace: str = ""
    """The client's traceparent header."""
    model: str = ""
    usage: Usage = field(default_factory=Usage)
    begin_s: float
    work_s: float | None = None
    """Time at which a model got the request: it waited until then."""
    first_token_s: float | None = None
    end_s: float = 0.0


Observer = Callable[[Course], None]
"""A use of the course of a request that has ended."""
_current: ContextVar[Course | None] = ContextVar("course", default=None)


class Watch:
    """ASGI middleware that tells observers the course of every request."""

    def __init__(self, app: ASGIApp, observers: Sequence[Observer]) -> None:
        self._app, self._observers = app, observers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        course = Course(begin_s=time.time())
        token = _current.set(course)

        async def send_status(message: Message) -> None:
            if message["type"] == "http.response.start":
                course.status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, send_status)
        finally:
            _current.reset(token)
            course.end_s = time.time()
            course.route = getattr(scope.get("route"), "path", NO_ROUTE)
            course.request_id = scope.get("request_id", "")
            headers = dict(scope["headers"])
            course.trace = headers.get(b"traceparent", b"").decode("latin-1")
            for observe in self._observers:
                observe(course)


@contextmanager
def course_of(route: str, request_id: str, observers: Sequence[Observer]) -> Iterator[Course]:
    """The course of work that goes on after its request, told to observers at its end."""
    course = Course(begin_s=time.time(), route=route, request_id=request_id, status=200)
    token = _current.set(course)
    try:
        yield course
    finally:
        _current.reset(token)
        course.end_s = time.time()
        for observe in observers:
            observe(course)


def watched(work: Work) -> Work:
    """The work of the present request, whose course takes note of its beginning, first token and usage."""
    course = _current.get()
    if course is None:
        return work

    async def start() -> AsyncGenerator[Delta]:
        course.work_s, course.model = time.time(), work.model
        deltas = _deltas(await work.start(), course)
        await anext(deltas)  # closing one that has not begun would not close the other
        return deltas

    return replace(work, start=start)


async def _deltas(deltas: AsyncGenerator[Delta], course: Course) -> AsyncGenerator[Delta]:
    """An empty delta, and the others."""
    async with aclosing(deltas):
        yield Delta()
        async for delta in deltas:
            if course.first_token_s is None:
                course.first_token_s = time.time()
            course.usage = delta.usage
            yield delta
