"""Turns: requests to one model wait in the fair queue until a slot is free, and free it when they end."""

import asyncio
import random
import time
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing

from shoestring.serve.admission.fair_queue import FairQueue, Priority, QueueLimits, Ticket
from shoestring.serve.admission.speed import Speed
from shoestring.serve.backends.errors import RequestError
from shoestring.serve.backends.reply import Delta, Usage

Start = Callable[[], Awaitable[AsyncGenerator[Delta]]]
"""Begins a request that was checked."""
TYPICAL_TOKENS = 512.0
"""Tokens of a completion, as long as none has ended."""
SMOOTHING = 0.05
RETRY_S = 5.0
"""Seconds after which to come back to a full queue whose speed is unknown."""
MAX_WAITS = 1000


class Turns:
    """The slots of one model and the requests that wait for them. Use it on one event loop."""

    def __init__(
        self,
        limits: QueueLimits,
        *,
        max_wait_s: float = 120.0,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """Refuse requests whose predicted wait is over `max_wait_s`; `chance` spreads when they come back."""
        self.queue = FairQueue(limits)
        self.waits_s: deque[tuple[float, float, Priority]] = deque(maxlen=MAX_WAITS)
        """The last waits that ended with a slot: the time of the end, the seconds, the class."""
        self._speed = Speed(clock)
        self._max_wait_s, self._clock, self._chance = max_wait_s, clock, chance
        self._waiting: dict[int, Turn] = {}
        self._running: set[Turn] = set()
        self.typical_tokens = TYPICAL_TOKENS
        """Tokens of a completion on average: the prediction for one that may be longer."""

    def enter(
        self,
        account_id: str,
        priority: Priority,
        *,
        prompt_tokens: float,
        max_tokens: float,
        weight: float = 1.0,
        on_close: Callable[[float], None] = lambda tokens: None,
    ) -> "Turn":
        """Take a place. Raises RequestError when the queue is full or the wait would be too long.

        `on_close` is told, at the end, by how many tokens the request was longer than predicted.
        """
        ticket = Ticket(
            account_id=account_id,
            priority=priority,
            weight=weight,
            prompt_tokens=prompt_tokens,
            max_tokens=min(max_tokens, self.typical_tokens),
        )
        has_room = self.queue.has_room(ticket)
        turn = Turn(self, ticket, self._clock(), on_close)
        self.queue.enter(ticket)
        self._waiting[ticket.number] = turn
        self._dispatch()
        if not turn.is_running:
            wait_s = self.predicted_wait_s(ticket)
            if not has_room or wait_s > self._max_wait_s:
                turn.close()
                raise self._refusal(wait_s)
        return turn

    def predicted_wait_s(self, ticket: Ticket) -> float:
        """About how long a request waits from now on; 0 as long as the model's speed is unknown."""
        speed = self._speed.tokens_per_s
        if not speed:
            return 0.0
        rest = sum(turn.tokens_left for turn in self._running)
        return (self.queue.ahead(ticket).tokens + rest / self.queue.limits.slots) / speed

    def oldest_wait_s(self, *priorities: Priority) -> float:
        """Seconds that the request that waits longest, of these classes, has waited."""
        begins = [turn.begin_s for turn in self._waiting.values() if turn.ticket.priority in priorities]
        return self._clock() - min(begins) if begins else 0.0

    def _refusal(self, wait_s: float) -> RequestError:
        """503, with a time to come back that differs from client to client."""
        retry_s = max(wait_s, RETRY_S) * (0.75 + 0.5 * self._chance())
        message = "the model has more requests than it can answer in time; try again later"
        return RequestError("overloaded", message, retry_after_s=retry_s)

    def _dispatch(self) -> None:
        """Give free slots to those whose turn it is."""
        while (ticket := self.queue.start()) is not None:
            turn = self._waiting.pop(ticket.number)
            self._running.add(turn)
            now_s = self._clock()
            self.waits_s.append((now_s, now_s - turn.begin_s, ticket.priority))
            turn.begin()

    def _charge(self, turn: "Turn", prompt_tokens: int, completion_tokens: int) -> None:
        """Count tokens of a request that runs; its prompt was charged with its slot."""
        is_busy = self.queue.num_running >= self.queue.limits.slots
        self._speed.add(prompt_tokens + completion_tokens, is_busy=is_busy)
        self.queue.charge(turn.ticket, completion_tokens=completion_tokens)

    def _close(self, turn: "Turn", completion_tokens: int, *, is_whole: bool) -> None:
        if turn in self._running:
            self._running.remove(turn)
            self.queue.finish(turn.ticket)
            if is_whole:
                self.typical_tokens += SMOOTHING * (completion_tokens - self.typical_tokens)
        else:
            del self._waiting[turn.ticket.number]
            self.queue.leave(turn.ticket)
        self._dispatch()


class Turn:
    """The place of one request: in the queue, then in a slot."""

    def __init__(
        self, turns: Turns, ticket: Ticket, begin_s: float, on_close: Callable[[float], None]
    ) -> None:
        self.ticket, self.begin_s = ticket, begin_s
        self.is_running = False
        self._turns, self._on_close = turns, on_close
        self._slot: asyncio.Event = asyncio.Event()
        self._usage = Usage()
        self._is_closed = self._is_whole = False

    @property
    def position(self) -> int:
        """About how many requests come before this one; 0 when it runs."""
        if self.is_running or self._is_closed:
            return 0
        return self._turns.queue.ahead(self.ticket).requests + 1

    @property
    def predicted_wait_s(self) -> float:
        """About how long it still waits."""
        if self.is_running or self._is_closed:
            return 0.0
        return self._turns.predicted_wait_s(self.ticket)

    @property
    def tokens_left(self) -> float:
        """Predicted tokens that are still to come."""
        prompt = 0.0 if self._usage.completion_tokens else self.ticket.prompt_tokens
        return prompt + max(self.ticket.max_tokens - self._usage.completion_tokens, 0.0)

    def begin(self) -> None:
        """Take the slot."""
        self.is_running = True
        self._slot.set()

    async def deltas(self, start: Start) -> AsyncGenerator[Delta]:
        """The deltas of the request, which begins at once when it has its slot, else as they are read.

        The place is given back at their end. Deltas that nobody begins to read have no end: close it then.
        """
        stream: AsyncGenerator[Delta] | None = None
        if self.is_running:
            try:
                stream = await start()
            except BaseException:
                self.close()
                raise
        return self._deltas(start, stream)

    async def _deltas(self, start: Start, stream: AsyncGenerator[Delta] | None) -> AsyncGenerator[Delta]:
        try:
            await self._slot.wait()
            async with aclosing(stream or await start()) as deltas:
                async for delta in deltas:
                    self._count(delta.usage)
                    yield delta
            self._is_whole = True
        finally:
            self.close()

    def close(self) -> None:
        """Give the place back; a second time has no effect."""
        if self._is_closed:
            return
        self._is_closed = True
        completion_tokens = self._usage.completion_tokens
        self._turns._close(self, completion_tokens, is_whole=self._is_whole)
        length = self.ticket.prompt_tokens + completion_tokens if self.is_running else 0.0
        self._on_close(length - self.ticket.tokens)

    def _count(self, usage: Usage) -> None:
        if usage == self._usage:
            return
        is_first = not self._usage.completion_tokens
        prompt_tokens = usage.prompt_tokens if is_first else 0
        num_new = max(usage.completion_tokens - self._usage.completion_tokens, 0)
        self._usage = usage
        self._turns._charge(self, prompt_tokens, num_new)
