"""Counts of events by second, over a span that moves with time."""

import time
from collections.abc import Callable


class Window:
    """Counts of the last seconds, in fixed memory."""

    def __init__(self, span_s: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._span_s, self._clock = span_s, clock
        self._counts = [0] * span_s
        self._last_s = int(clock())

    def add(self, number: int = 1) -> None:
        """Count events of this second."""
        self._counts[self._now() % self._span_s] += number

    def count(self, span_s: int | None = None) -> int:
        """The events of the last `span_s` seconds, the present one included; of all seconds without it."""
        now_s = self._now()
        return sum(self._counts[(now_s - age_s) % self._span_s] for age_s in range(span_s or self._span_s))

    def _now(self) -> int:
        """The present second; the counts of seconds that are too old are set to 0."""
        now_s = max(int(self._clock()), self._last_s)
        for second in range(max(self._last_s, now_s - self._span_s) + 1, now_s + 1):
            self._counts[second % self._span_s] = 0
        self._last_s = now_s
        return now_s
