"""Chat completions of any OpenAI-compatible server: many at once, retried, and never past a cost cap."""

import asyncio
import contextlib
import json
import logging
import queue
import random
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shoestring.errors import ConfigError, DataError
from shoestring.remote.config import RemoteConfig, checked_url, read_key
from shoestring.remote.wire import (
    Completion,
    Refusal,
    backoff_s,
    read_completion,
    read_refusal,
)

if TYPE_CHECKING:
    import httpx2

log = logging.getLogger(__name__)

PULSE_S = 0.2
"""Whoever waits for answers is woken so often, to look whether it should stop."""
TEMPLATE_TOKENS = 256
"""What a server's chat template may add to a prompt, for the worst case of a price."""
FAILURES_IN_A_ROW = 8
"""So many requests failed for good, one after the other: the server is gone."""
OUT_OF_MONEY = "cost"
"""The fault of an ask that the cap left no room for."""
_ERROR_BYTES = 1 << 16
_HINTS = {
    401: "check the key that remote.key_env names",
    402: "the account there is empty",
    403: "check the key that remote.key_env names",
    404: "check the URL (most end in /v1) and remote.model",
}


@dataclass(frozen=True, kw_only=True)
class Ask:
    """One conversation whose next turn is wanted, `n` times."""

    id: str
    """Comes back with each answer."""
    messages: tuple[dict[str, str], ...]
    n: int = 1
    start: int = 0
    """How many answers to it there are already: teachers with seeds draw the next ones."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One answer, or (`fault` given, text empty) why there will be no more to this ask."""

    id: str
    text: str = ""
    """The assistant's whole turn: `<think>...</think>` and then the answer."""
    finish_reason: str = ""
    tokens: int | None = None
    """Generated ones, if known."""
    cost: float = 0.0
    """Of this ask since its last Answer."""
    fault: str | None = None
    """Words for a person; OUT_OF_MONEY when the cap left no room."""


class Budget:
    """Money spent and held for requests under way; the two together never pass the cap."""

    def __init__(self, cap: float | None) -> None:
        self.cap, self.spent, self._held = cap, 0.0, 0.0
        self._open = 0  # holds not settled yet: sums of floats do not come back to zero
        self._changed = asyncio.Condition()

    async def hold(self, most: float) -> bool:
        """Set aside what a request may cost at most; False when there is no room, whatever others leave."""
        async with self._changed:
            while self._is_over(most) and self._open:
                await self._changed.wait()
            if self._is_over(most):
                return False
            self._held += most
            self._open += 1
            return True

    async def settle(self, held: float, cost: float) -> None:
        """Give back what was held and charge what it came to."""
        async with self._changed:
            self._open -= 1
            self._held = self._held - held if self._open else 0.0
            self.spent += cost
            self._changed.notify_all()

    def _is_over(self, most: float) -> bool:
        return self.cap is not None and self.spent + self._held + most > self.cap


class Remote:
    """A server that answers; raises ConfigError for a URL, model or key that cannot be meant.

    The cap assumes that a token of the prompt has at least one byte, that a template adds at most
    TEMPLATE_TOKENS of them and that `max_tokens` bounds the thinking too. A request whose reply is lost
    counts as if it had cost the most it could.
    """

    def __init__(
        self,
        url: str,
        config: RemoteConfig,
        *,
        max_tokens: int,
        temperature: float,
        top_p: float,
    ) -> None:
        self.url, self.config = checked_url(url), config
        if not config.model:
            raise ConfigError(f"remote.model is empty; name the model that {self.url} shall answer with")
        self.name = f"{config.model} at {self.url}"
        self._key = read_key(config.key_env, self.url)
        self._sampling = {"max_tokens": max_tokens, "temperature": temperature, "top_p": top_p}
        self._budget = Budget(config.cost_cap)
        self._many = True  # until the server gives fewer answers than asked for
        self._failures = 0
        self._quiet_until = 0.0  # by the loop's clock: a server that says "later" says it to all of us

    @property
    def spent(self) -> float:
        """Money until now; set it to what earlier runs of the same collection cost."""
        return self._budget.spent

    @spent.setter
    def spent(self, money: float) -> None:
        self._budget.spent = money

    def answers(self, asks: Iterable[Ask]) -> Generator[Answer | None, None, None]:
        """Answers as they come, in no order, and None every PULSE_S without one.

        Closing the iterator gives up what is under way. Raises ConfigError when the server refuses us
        (key, model, URL), DataError when it fails again and again.
        """
        news: queue.SimpleQueue[Answer | Exception | None] = queue.SimpleQueue()
        with contextlib.closing(asyncio.new_event_loop()) as loop:
            task = loop.create_task(self._serve(iter(asks), news.put))
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

    async def _serve(self, asks: Iterator[Ask], tell: Callable[[Answer | Exception | None], None]) -> None:
        """Keep `concurrency` requests under way; the last thing told is None."""
        import httpx2

        headers = {"Accept-Encoding": "identity"}  # a compressed reply could be a bomb
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        limits = httpx2.Limits(max_connections=self.config.concurrency)
        try:
            async with (
                httpx2.AsyncClient(headers=headers, limits=limits, timeout=None) as client,
                asyncio.TaskGroup() as group,
            ):
                for _ in range(self.config.concurrency):
                    group.create_task(self._work(client, asks, tell))
        except* Exception as errors:  # must reach the thread that waits
            tell(_first(errors))
        tell(None)

    async def _work(
        self, client: "httpx2.AsyncClient", asks: Iterator[Ask], tell: Callable[..., None]
    ) -> None:
        for ask in asks:
            got, bill = 0, _Bill()
            try:
                while got < ask.n:
                    completion = await self._complete(client, ask, ask.n - got if self._many else 1, bill)
                    got += len(completion.choices)
                    for choice in completion.choices:
                        alone = len(completion.choices) == 1
                        tell(
                            Answer(
                                id=ask.id,
                                text=choice.text,
                                finish_reason=choice.finish_reason,
                                tokens=completion.completion_tokens if alone else None,
                                cost=bill.take(),
                            )
                        )
                self._failures = 0
            except Refusal as refusal:
                tell(Answer(id=ask.id, fault=str(refusal), cost=bill.take()))
                if refusal.cure == "stop":
                    return
                self._failures += 1
                if self._failures >= FAILURES_IN_A_ROW:
                    raise DataError(f"{self.url} fails every request, lastly: {refusal}") from None

    async def _complete(self, client: "httpx2.AsyncClient", ask: Ask, n: int, bill: "_Bill") -> Completion:
        """At most n answers; Refusal when no try brought any."""
        for attempt in range(self.config.attempts):
            try:
                completion = await self._try(client, ask, n, bill)
                self._many = self._many and len(completion.choices) == n
                return completion
            except Refusal as refusal:
                if refusal.cure == "skip" and n > 1:  # llama.cpp's server once refused n > 1 this way
                    completion = await self._complete(client, ask, 1, bill)
                    self._many = False
                    return completion
                if refusal.cure != "again" or attempt + 1 == self.config.attempts:
                    raise
                log.info("%s: %s; trying again", self.url, refusal)
                if refusal.wait_s:
                    until = asyncio.get_running_loop().time() + refusal.wait_s
                    self._quiet_until = max(self._quiet_until, until)
                await asyncio.sleep(backoff_s(attempt, refusal.wait_s, random.random()))
        raise AssertionError("the last try returns or raises")

    async def _try(self, client: "httpx2.AsyncClient", ask: Ask, n: int, bill: "_Bill") -> Completion:
        """One request within the budget."""
        await asyncio.sleep(self._quiet_until - asyncio.get_running_loop().time())
        content = self._body(ask, n)
        prompt = len(content) + TEMPLATE_TOKENS
        most = self._price(prompt, n * self._sampling["max_tokens"])
        if not await self._budget.hold(most):
            raise Refusal(OUT_OF_MONEY, "stop")
        charged = most  # unless we learn better; so when interrupted
        try:
            completion = await self._post(client, content, n)
            if completion.prompt_tokens is not None and completion.completion_tokens is not None:
                charged = self._price(completion.prompt_tokens, completion.completion_tokens)
            return completion
        except Refusal as refusal:
            charged = most if refusal.billed else 0.0
            raise
        except ConfigError:
            charged = 0.0
            raise
        finally:
            bill.amount += charged
            await self._budget.settle(most, charged)

    async def _post(self, client: "httpx2.AsyncClient", content: bytes, n: int) -> Completion:
        import httpx2

        headers = {"Content-Type": "application/json"}
        url = f"{self.url}/chat/completions"
        try:
            async with (
                asyncio.timeout(self.config.timeout_s),
                client.stream("POST", url, content=content, headers=headers) as reply,
            ):
                if reply.status_code != 200:
                    said = await _read(reply, _ERROR_BYTES, cut=True)
                    raise self._refused(reply.status_code, reply.headers, said)
                body = await _read(reply, self.config.max_reply_bytes)
        except TimeoutError:
            raise Refusal(f"no reply within {self.config.timeout_s:g} s", "again", billed=True) from None
        except (httpx2.ConnectError, httpx2.UnsupportedProtocol) as error:
            raise Refusal(f"no connection: {self._hidden(str(error))}", "again") from None
        except (httpx2.HTTPError, httpx2.StreamError, OSError, ValueError) as error:
            raise Refusal(f"the reply broke off ({type(error).__name__})", "again", billed=True) from None
        return read_completion(body, n)

    def _body(self, ask: Ask, n: int) -> bytes:
        asked = {"model": self.config.model, "messages": ask.messages, **self._sampling}
        several = {"n": n} if n > 1 else {}
        return json.dumps({**self.config.extra, **asked, **several}).encode()

    def _refused(self, status: int, headers: Mapping[str, str], said: bytes) -> Refusal:
        """The refusal that a status means; ConfigError for one that every request would meet."""
        refusal = read_refusal(status, {name.lower(): headers[name] for name in headers}, said)
        why = self._hidden(str(refusal))
        if refusal.cure == "stop":
            raise ConfigError(f"{self.url} refuses us, {why}; {_HINTS.get(status, _HINTS[404])}")
        return Refusal(why, refusal.cure, billed=refusal.billed, wait_s=refusal.wait_s)

    def _hidden(self, text: str) -> str:
        """Without the key, which some servers repeat."""
        return text.replace(self._key, "***") if self._key else text

    def _price(self, prompt_tokens: int, generated_tokens: float) -> float:
        config = self.config
        return (prompt_tokens * config.price_in + generated_tokens * config.price_out) / 1e6


@dataclass
class _Bill:
    """What an ask has cost and not yet reported."""

    amount: float = 0.0

    def take(self) -> float:
        amount, self.amount = self.amount, 0.0
        return amount


def _run(loop: asyncio.AbstractEventLoop, task: "asyncio.Task[None]") -> None:
    """The thread: until all is asked, or the task is canceled."""
    with contextlib.suppress(asyncio.CancelledError):
        loop.run_until_complete(task)
    loop.run_until_complete(loop.shutdown_asyncgens())


async def _read(reply: "httpx2.Response", limit: int, *, cut: bool = False) -> bytes:
    """The reply's bytes, or (`cut`) only the first of them; Refusal when they are too many or packed."""
    if reply.headers.get("content-encoding", "identity").lower() != "identity":
        raise Refusal("the reply is compressed, which was not asked for", "again", billed=True)
    parts, size = [], 0
    async for part in reply.aiter_raw():
        parts.append(part)
        size += len(part)
        if size > limit and not cut:
            raise Refusal(f"the reply is longer than {limit:,} bytes", "again", billed=True)
        if size > limit:
            break
    return b"".join(parts)[:limit]


def _first(errors: BaseExceptionGroup[Exception]) -> Exception:
    """One of a group's errors."""
    error: BaseException = errors
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, Exception)
    return error
