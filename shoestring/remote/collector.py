"""Many chat requests to one server at once, within a budget, for rejection sampling."""

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from shoestring.errors import DataError
from shoestring.remote.budget import Account, Budget
from shoestring.remote.client import OUT_OF_MONEY, ChatClient
from shoestring.remote.config import RemoteConfig
from shoestring.remote.wire import ChatCompletion, Refusal, is_overlong
from shoestring.tokenizer.overlong import OVERLONG

__all__ = ["OUT_OF_MONEY", "ChatCollector", "ChatReply", "ChatRequest"]

PULSE_S = 0.2
"""Seconds after which a caller that waits for replies gets control back, to see whether it should stop."""
FAILURES_IN_A_ROW = 8
"""Requests that fail one after the other before the server counts as gone."""


@dataclass(frozen=True, kw_only=True)
class ChatRequest:
    """One conversation whose next turn is wanted, `n` times."""

    id: str
    """Comes back with each reply."""
    messages: tuple[dict[str, str], ...]
    n: int = 1
    start: int = 0
    """The number of replies to it that there are already: a teacher with seeds draws the next ones."""


@dataclass(frozen=True, kw_only=True)
class ChatReply:
    """One reply, or (`fault` set, text empty) the reason why this request gets no more."""

    id: str
    text: str = ""
    """The assistant's whole turn: `<think>...</think>` and then the answer."""
    finish_reason: str = ""
    tokens: int | None = None
    """Generated tokens, if known."""
    prompt_tokens: int | None = None
    """Tokens of the prompt, if known."""
    cost: float = 0.0
    """The cost of this request since its last reply."""
    fault: str | None = None
    """A message for people; OUT_OF_MONEY when the cost cap left no room, OVERLONG for a prompt that the
    context cannot hold."""

    @property
    def all_tokens(self) -> int:
        """Tokens of prompt and reply, as far as they are known."""
        return (self.tokens or 0) + (self.prompt_tokens or 0)


Report = Callable[[ChatReply | Exception | None], None]


class ChatCollector:
    """Replies of one server, `concurrency` requests at once; their cost stays under the cap."""

    def __init__(
        self, url: str, config: RemoteConfig, *, max_tokens: int, temperature: float, top_p: float
    ) -> None:
        """Raises ConfigError for a URL, model or key that cannot be right."""
        self._client = ChatClient(url, config)
        self.name = f"{config.model} at {self._client.url}"
        self._sampling = {"max_tokens": max_tokens, "temperature": temperature, "top_p": top_p}
        self._budget = Budget(config.cost_cap)
        self._honors_n = True  # until the server gives fewer replies than requested
        self._num_failures = 0

    @property
    def total_cost(self) -> float:
        """Money until now; set it to the cost of earlier runs of the same collection."""
        return self._budget.total_cost

    @total_cost.setter
    def total_cost(self, cost: float) -> None:
        self._budget.total_cost = cost

    def replies(self, requests: Iterable[ChatRequest]) -> Generator[ChatReply | None, None, None]:
        """Replies as they come, in no order, and None every PULSE_S without one.

        Closing the iterator gives up the requests under way. Raises ConfigError when the server refuses us
        (key, model, URL), DataError when it fails again and again.
        """
        news: queue.SimpleQueue[ChatReply | Exception | None] = queue.SimpleQueue()
        with contextlib.closing(asyncio.new_event_loop()) as loop:
            task = loop.create_task(self._serve(iter(requests), news.put))
            thread = threading.Thread(target=_run, args=(loop, task), daemon=True)
            thread.start()
            try:
                while True:
                    try:
                        item = news.get(timeout=PULSE_S)
                    except queue.Empty:
                        yield None
                        continue
                    if item is None:
                        return
                    if isinstance(item, Exception):
                        raise item
                    yield item
            finally:
                loop.call_soon_threadsafe(task.cancel)
                thread.join()

    async def _serve(self, requests: Iterator[ChatRequest], report: Report) -> None:
        """Keep `concurrency` requests under way; reports None at the end."""
        self._budget = Budget(self._budget.cap, self._budget.total_cost)  # for this event loop
        try:
            async with self._client, asyncio.TaskGroup() as group:
                for _ in range(self._client.config.concurrency):
                    group.create_task(self._work(requests, report))
        except* Exception as errors:  # must reach the thread that waits
            report(_first(errors))
        report(None)

    async def _work(self, requests: Iterator[ChatRequest], report: Report) -> None:
        for request in requests:
            account = Account(self._budget)
            try:
                await self._ask(request, account, report)
                self._num_failures = 0
            except Refusal as refusal:
                overlong = refusal.action == "skip" and is_overlong(str(refusal))
                fault = OVERLONG if overlong else str(refusal)
                report(ChatReply(id=request.id, fault=fault, cost=account.take_new_cost()))
                if refusal.action == "stop":
                    return
                if overlong:  # a fault of this problem says nothing about the server
                    continue
                self._num_failures += 1
                if self._num_failures >= FAILURES_IN_A_ROW:
                    raise DataError(f"{self._client.url} fails every request, lastly: {refusal}") from None

    async def _ask(self, request: ChatRequest, account: Account, report: Report) -> None:
        """Report all n replies to one request."""
        remaining = request.n
        while remaining > 0:
            completion = await self._complete(request, remaining if self._honors_n else 1, account)
            remaining -= len(completion.choices)
            is_alone = len(completion.choices) == 1
            for choice in completion.choices:
                reply = ChatReply(
                    id=request.id,
                    text=choice.text,
                    finish_reason=choice.finish_reason,
                    tokens=completion.completion_tokens if is_alone else None,
                    prompt_tokens=completion.prompt_tokens if is_alone else None,
                    cost=account.take_new_cost(),
                )
                report(reply)

    async def _complete(self, request: ChatRequest, n: int, account: Account) -> ChatCompletion:
        """At most n replies; one where the server cannot give several at once."""
        try:
            completion = await self._client.complete(self._body(request, n), account)
        except Refusal as refusal:
            if refusal.action != "skip" or n == 1:
                raise
            # llama.cpp's server once refused n > 1 this way
            completion = await self._client.complete(self._body(request, 1), account)
        self._honors_n = self._honors_n and len(completion.choices) == n
        return completion

    def _body(self, request: ChatRequest, n: int) -> dict[str, Any]:
        return {"messages": request.messages, **self._sampling, **({"n": n} if n > 1 else {})}


def _run(loop: asyncio.AbstractEventLoop, task: "asyncio.Task[None]") -> None:
    """The thread: until every request has ended, or the task is canceled."""
    with contextlib.suppress(asyncio.CancelledError):
        loop.run_until_complete(task)
    loop.run_until_complete(loop.shutdown_asyncgens())


def _first(errors: BaseExceptionGroup[Exception]) -> Exception:
    """One of a group's errors."""
    error: BaseException = errors
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, Exception)
    return error
