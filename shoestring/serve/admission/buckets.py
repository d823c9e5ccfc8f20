"""Token buckets by name: rates of requests and tokens, in bounded memory.

The generic cell rate algorithm keeps one number for each bucket: the time at which it is full again.
"""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rate:
    """So many units in a period. All of them may come at once; then they come back evenly."""

    amount: float
    period_s: float = 60.0


@dataclass(frozen=True, slots=True)
class Level:
    """The state of a bucket after a request."""

    is_enough: bool
    """Whether the request was paid for."""
    limit: int
    remaining: int
    full_after_s: float
    """Seconds until the bucket is full again."""
    retry_after_s: float
    """Seconds until a request of this cost is paid for; 0 when this one was."""


class Buckets:
    """Buckets by name, those that were used last; one that is forgotten is full again."""

    def __init__(self, max_names: int = 65536, clock: Callable[[], float] = time.monotonic) -> None:
        self._max_names, self._clock = max_names, clock
        self._full_at_s: OrderedDict[str, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._full_at_s)

    def take(self, name: str, rate: Rate, cost: float = 1.0) -> Level:
        """Pay for a request if the bucket has enough. A full bucket pays for any one request."""
        return self._level(name, rate, cost, is_payment=True)

    def look(self, name: str, rate: Rate, cost: float = 1.0) -> Level:
        """The level that `take` would find, without taking."""
        return self._level(name, rate, cost, is_payment=False)

    def correct(self, name: str, rate: Rate, cost: float) -> None:
        """Take more than was estimated, or give back what was too much (a negative cost)."""
        if name in self._full_at_s:
            self._full_at_s[name] += cost * rate.period_s / rate.amount

    def _level(self, name: str, rate: Rate, cost: float, *, is_payment: bool) -> Level:
        now_s, unit_s = self._clock(), rate.period_s / rate.amount
        full_at_s = max(self._full_at_s.get(name, now_s), now_s)
        excess_s = full_at_s + cost * unit_s - now_s - rate.period_s
        is_enough = excess_s <= 1e-9 or full_at_s == now_s
        if is_payment and is_enough:
            full_at_s += cost * unit_s
            self._keep(name, full_at_s)
        remaining = int(max(rate.period_s - (full_at_s - now_s), 0.0) / unit_s + 1e-6)
        retry_after_s = 0.0 if is_enough else min(excess_s, full_at_s - now_s)
        return Level(is_enough, int(rate.amount), remaining, full_at_s - now_s, retry_after_s)

    def _keep(self, name: str, full_at_s: float) -> None:
        self._full_at_s[name] = full_at_s
        self._full_at_s.move_to_end(name)
        if len(self._full_at_s) > self._max_names:
            self._full_at_s.popitem(last=False)
