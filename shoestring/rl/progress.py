"""Progress of sampling inside a step of reinforcement learning: answers so far, and the time that is left."""

import time
from collections.abc import Callable
from datetime import timedelta

from shoestring.engine.engine import Engine
from shoestring.train.loop import Pulse

INTERVAL_S = 0.5
"""Seconds between two lines."""


class SamplingProgress:
    """Call it after each batch of the engine: it says how far the sampling is, and ends it on a stop.

    The time that is left is that of the tokens that are left at the speed so far: `tokens_per_answer`, or as
    many as an answer may have where the run knows no answers yet, and then it is the longest time.
    """

    def __init__(
        self,
        engine: Engine,
        pulse: Pulse,
        *,
        num_answers: int,
        max_tokens: int,
        tokens_per_answer: float | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine, self._pulse, self._clock = engine, pulse, clock
        self._num_answers = num_answers
        self._bound = "" if tokens_per_answer else "at most "
        self._num_tokens = num_answers * (tokens_per_answer or max_tokens)
        self._begin_s, self._said_s = clock(), clock()
        self._begin_tokens = engine.counters.generated_tokens

    def __call__(self) -> None:
        """Raises Abandoned when the run was asked to stop."""
        self._pulse.check()
        now_s = self._clock()
        if now_s - self._said_s >= INTERVAL_S:
            self._said_s = now_s
            self._pulse.say(self._sentence(now_s - self._begin_s))

    def _sentence(self, seconds: float) -> str:
        counters = self._engine.counters
        num_finished = self._num_answers - counters.running - counters.waiting
        sentence = f"sampling {num_finished:,} of {self._num_answers:,} answers"
        num_sampled = counters.generated_tokens - self._begin_tokens
        if not num_sampled:
            return sentence
        left_s = max(self._num_tokens - num_sampled, 0.0) * seconds / num_sampled
        return f"{sentence}, {self._bound}{timedelta(seconds=round(left_s))} left"
