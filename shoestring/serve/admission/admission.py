"""Admission: what a caller may ask for now, from the connection to the turn at a model."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from shoestring.serve.admission.address import Proxies, network_of
from shoestring.serve.admission.buckets import Buckets, Level, Rate
from shoestring.serve.admission.connections import ConnectionLimits, Connections
from shoestring.serve.admission.fair_queue import QueueLimits
from shoestring.serve.admission.pace import keep_pace
from shoestring.serve.admission.rates import Headers, rate_headers
from shoestring.serve.admission.receipt import ReceiptLimits
from shoestring.serve.admission.turns import Turn, Turns
from shoestring.serve.backends.errors import RequestError
from shoestring.serve.backends.reply import Work
from shoestring.serve.caller import NOBODY, Caller

SLOTS = 256
"""Requests at the same time to a model on other servers."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits of everyone; an account or a key may have its own. None is no limit."""

    receipt: ReceiptLimits = field(default_factory=ReceiptLimits)
    connections: ConnectionLimits = field(default_factory=ConnectionLimits)
    concurrency: int | None = 500
    """Requests of an account under way, from the first byte to the last of the reply."""
    requests_per_minute: float | None = 6000.0
    """Requests of an account, all its keys together."""
    tokens_per_minute: float | None = None
    """Tokens of its prompts and completions together."""
    stranger_per_minute: float = 120.0
    """Requests without a valid key or session from one address."""
    network_per_minute: float = 600.0
    """The same from the strangers of one network."""
    strangers_per_s: float = 100.0
    """The same from all strangers."""
    max_wait_s: float = 120.0
    """A request whose predicted wait for its turn is longer is refused."""


class Admission:
    """The limits of all callers, and the turns at all models. Use it on one event loop."""

    def __init__(
        self,
        limits: Limits | None = None,
        *,
        slots: Mapping[str, int] | None = None,
        proxies: Proxies | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`slots`: requests at the same time by the name of the model."""
        self.limits = limits or Limits()
        self.proxies = proxies or Proxies()
        self.connections = Connections(self.limits.connections, self.proxies, clock)
        self.turns: dict[str, Turns] = {}
        """The turns of the models that were asked for, by name."""
        self._slots, self._clock = dict(slots or {}), clock
        self._buckets = Buckets(clock=clock)
        self._pacing: asyncio.Task[None] | None = None
        self._num_requests: Counter[str] = Counter()
        """Requests under way by account."""

    async def start(self) -> None:
        """Begin to measure how late the event loop is."""
        self._pacing = asyncio.create_task(keep_pace(self.connections.pace.measure))

    async def stop(self) -> None:
        """End measuring."""
        if self._pacing is not None:
            self._pacing.cancel()

    def may_try(self, address: str) -> bool:
        """Return whether an address has not used up its requests without a valid key."""
        rate = Rate(self.limits.stranger_per_minute)
        return self._buckets.look(f"stranger {address}", rate).is_enough

    def check_stranger(self, address: str) -> None:
        """Pay for a request without a valid key or session. Raises RequestError when there are too many.

        An address from which a valid one came is not in one pot with the strangers.
        """
        pots = {address: Rate(self.limits.stranger_per_minute)}
        if not self.connections.knows(address):
            pots[network_of(address)] = Rate(self.limits.network_per_minute)
            pots["everyone"] = Rate(self.limits.strangers_per_s, 1.0)
        for name, rate in pots.items():
            level = self._buckets.take(f"stranger {name}", rate)
            if not level.is_enough:
                raise _too_many("requests without a valid key", level)

    def check_caller(self, caller: Caller) -> None:
        """Count a request until it ends. Raises RequestError for one too many."""
        self.check_rate(caller)
        most = self.limits.concurrency if caller.max_concurrency is None else caller.max_concurrency
        if most is not None and self._num_requests[caller.account_id] >= most:
            sentence = f"this account has {most} requests under way, which is its limit; wait for one to end"
            raise RequestError("rate_limit", sentence, retry_after_s=1)
        self._num_requests[caller.account_id] += 1
        caller.ending.callback(self._end, caller.account_id)

    def set_slots(self, model: str, slots: int) -> None:
        """Let a model that nobody has asked for take so many requests at the same time."""
        self._slots[model] = slots
        self.turns.pop(model, None)

    def check_rate(self, caller: Caller) -> None:
        """Pay for a request of a caller. Raises RequestError when there are too many a minute."""
        for name, rate in self._rates(caller, "requests"):
            level = self._buckets.take(name, rate)
            if not level.is_enough:
                raise _too_many("requests a minute", level)

    def turn(self, caller: Caller, work: Work) -> Turn:
        """A place at a model until the request ends. Raises RequestError when there is too much to do."""
        turns = self._turns(work.model)
        tokens = work.prompt_tokens + min(work.max_tokens, turns.typical_tokens)
        for name, rate in self._rates(caller, "tokens"):
            level = self._buckets.take(name, rate, tokens)
            if not level.is_enough:
                raise _too_many("tokens a minute", level)
        turn = turns.enter(
            caller.account_id,
            caller.priority,
            prompt_tokens=work.prompt_tokens,
            max_tokens=work.max_tokens,
            weight=caller.weight,
            on_close=lambda tokens: self._correct(caller, tokens),
        )
        caller.ending.callback(turn.close)
        return turn

    def headers(self, caller: Caller, path: str) -> Headers:
        """The rates of a caller: those of its key, where it has some, else those of its account."""
        levels: dict[str, Level] = {}
        for unit in ("requests", "tokens"):
            for name, rate in self._rates(caller, unit):
                levels[unit] = self._buckets.look(name, rate, 0)
        return rate_headers(path, levels, time.time())

    def paying_wait_s(self) -> float:
        """Seconds that the oldest request above the class `batch` has waited for its turn."""
        waits_s = [turns.oldest_wait_s("interactive", "standard") for turns in self.turns.values()]
        return max(waits_s, default=0.0)

    def _turns(self, model: str) -> Turns:
        if model not in self.turns:
            limits = QueueLimits(slots=self._slots.get(model, SLOTS))
            self.turns[model] = Turns(limits, max_wait_s=self.limits.max_wait_s, clock=self._clock)
        return self.turns[model]

    def _rates(self, caller: Caller, unit: str) -> Iterator[tuple[str, Rate]]:
        """The buckets of the account and of the key, with their rates."""
        if caller.account_id == NOBODY.account_id:
            return  # strangers have limits of their own
        everyone: float | None = getattr(self.limits, f"{unit}_per_minute")
        own: int | None = getattr(caller, f"{unit}_per_minute")
        account = own if own is not None and caller.key_id is None else everyone
        if account is not None:
            yield f"{unit} account {caller.account_id}", Rate(account)
        if own is not None and caller.key_id is not None:
            yield f"{unit} key {caller.key_id}", Rate(own)

    def _correct(self, caller: Caller, tokens: float) -> None:
        """Pay for what a request took more than was predicted, or take back what it took less."""
        for name, rate in self._rates(caller, "tokens"):
            self._buckets.correct(name, rate, tokens)

    def _end(self, account_id: str) -> None:
        self._num_requests[account_id] -= 1
        if not self._num_requests[account_id]:
            del self._num_requests[account_id]


def _too_many(unit: str, level: Level) -> RequestError:
    sentence = f"too many {unit}: the limit is {level.limit}; wait {level.retry_after_s:.1f} s"
    return RequestError("rate_limit", sentence, retry_after_s=level.retry_after_s)
