"""The tally of replies over the last minutes, for the status page."""

import statistics
import time
from collections import deque
from collections.abc import Callable

from shoestring.serve.admission.window import Window
from shoestring.serve.watch import Course

SPAN_S = 300
MAX_TIMES = 2000


class Tally:
    """Counts of replies, and times to the first token, of the last five minutes."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._counts = {name: Window(SPAN_S, clock) for name in ("replies", "failures", "full", "refusals")}
        self._first_tokens: deque[tuple[float, float]] = deque(maxlen=MAX_TIMES)

    def observe(self, course: Course) -> None:
        """Count a request that has ended."""
        self._counts["replies"].add()
        if course.status == 503:
            self._counts["full"].add()
        elif course.status >= 500:
            self._counts["failures"].add()
        elif course.status in (401, 402, 403, 429):
            self._counts["refusals"].add()
        if course.first_token_s is not None:
            self._first_tokens.append((course.end_s, course.first_token_s - course.begin_s))

    def count(self, name: str) -> int:
        """Requests that ended: `replies` (all), `failures`, `full` (503), `refusals` (401, 402, 403, 429)."""
        return self._counts[name].count()

    @property
    def first_token_s(self) -> float | None:
        """The median time to the first token; None when there was none."""
        since_s = self._clock() - SPAN_S
        times_s = [first_s for end_s, first_s in self._first_tokens if end_s >= since_s]
        return statistics.median(times_s) if times_s else None
