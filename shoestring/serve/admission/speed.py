"""The speed of a model that is fully busy, for predictions of waits."""

from collections.abc import Callable

WINDOW_S = 1.0
SMOOTHING = 0.3
"""Share of the newest window in the average."""


class Speed:
    """Tokens per second, prompts included, over the times in which every slot was in use."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.tokens_per_s: float | None = None
        """None until the model was busy for a second."""
        self._clock = clock
        self._begin_s: float | None = None
        self._tokens = 0.0

    def add(self, tokens: float, *, is_busy: bool) -> None:
        """Count tokens that have come just now."""
        if not is_busy:
            self._begin_s = None
            return
        now_s = self._clock()
        if self._begin_s is None:
            self._begin_s, self._tokens = now_s, 0.0
            return
        self._tokens += tokens
        if (passed_s := now_s - self._begin_s) >= WINDOW_S:
            newest = self._tokens / passed_s
            old = newest if self.tokens_per_s is None else self.tokens_per_s
            self.tokens_per_s = old + SMOOTHING * (newest - old)
            self._begin_s, self._tokens = now_s, 0.0
