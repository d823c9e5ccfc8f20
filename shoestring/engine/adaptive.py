"""Speculation that measures itself: drafts between steps, and rests while drafting does not pay."""

import statistics
import time
from collections import deque
from collections.abc import Callable

from torch import Tensor

from shoestring.engine.scheduler import Batch
from shoestring.engine.sequence import Sequence
from shoestring.engine.speculate import Drafter


class AdaptiveSpeculation:
    """Whether drafting pays, by the clock, for each number of sequences up to the next power of two.

    It compares plain decoding steps with drafted ones: tokens per sequence and second. While drafting loses
    it rests, each time twice as long, and then tries again.
    """

    PLAIN_STEPS, TRIAL_STEPS, REFRESH_STEPS = 8, 24, 512
    FIRST_REST, LONGEST_REST = 128, 8192

    def __init__(self) -> None:
        self._sizes: dict[int, _Trial] = {}

    def depth(self, num_sequences: int, depth: int) -> int | None:
        """How many tokens to draft now: `depth`, 0 (keep up, but measure without), or None (rest)."""
        trial = self._trial(num_sequences)
        if trial.rest > 0:
            return None
        return 0 if len(trial.plain_s) < self.PLAIN_STEPS else depth

    def record(
        self, num_sequences: int, tokens: int, *, model_s: float, draft_s: float, drafted: bool
    ) -> None:
        """One step in which all sequences decoded: what it took, with drafts to verify or without."""
        trial = self._trial(num_sequences)
        trial.rest = max(trial.rest - 1, 0)
        if not drafted:
            trial.plain_s.append(model_s)
            return
        trial.drafted_s.append(model_s + draft_s)
        trial.tokens.append(tokens / num_sequences)
        trial.steps += 1
        if trial.steps % self.TRIAL_STEPS == 0 and trial.gain() < 1:
            trial.rest = trial.next_rest
            trial.next_rest = min(2 * trial.next_rest, self.LONGEST_REST)
            trial.forget()
        elif trial.steps % self.REFRESH_STEPS == 0:
            trial.next_rest = self.FIRST_REST
            trial.forget()

    def gain(self, num_sequences: int) -> float | None:
        """Speed with drafts over speed without, once both were measured."""
        trial = self._trial(num_sequences)
        return trial.gain() if trial.plain_s and trial.drafted_s else None

    def _trial(self, num_sequences: int) -> "_Trial":
        return self._sizes.setdefault((num_sequences - 1).bit_length(), _Trial(self))


class _Trial:
    """What was measured for one size of batch."""

    def __init__(self, limits: AdaptiveSpeculation) -> None:
        self.plain_s: deque[float] = deque(maxlen=limits.PLAIN_STEPS)
        self.drafted_s: deque[float] = deque(maxlen=limits.TRIAL_STEPS)
        self.tokens: deque[float] = deque(maxlen=limits.TRIAL_STEPS)
        self.steps, self.rest, self.next_rest = 0, 0, limits.FIRST_REST

    def gain(self) -> float:
        plain, drafted = statistics.median(self.plain_s), statistics.median(self.drafted_s)
        return statistics.fmean(self.tokens) * plain / drafted

    def forget(self) -> None:
        self.plain_s.clear()
        self.drafted_s.clear()
        self.tokens.clear()


class Speculation:
    """Between two steps: lets the drafter draft what the next step verifies, if it pays."""

    def __init__(self, drafter: Drafter, *, depth: int, adaptive: AdaptiveSpeculation | None) -> None:
        self.drafter, self.depth, self.adaptive = drafter, depth, adaptive

    def prepare(
        self,
        batch: Batch,
        hidden_ND: Tensor,
        allowed: Callable[[Sequence, list[int]], list[int]],
        *,
        tokens: int,
        model_s: float,
    ) -> None:
        """Hand drafts, as far as they are `allowed`, to the sequences of a committed batch.

        The batch gave `tokens` tokens and took `model_s` seconds.
        """
        begin, size, depth = time.perf_counter(), len(batch.scheduled), self.depth
        wanted = depth if self.adaptive is None else self.adaptive.depth(size, depth)
        if wanted is not None:
            for sequence, drafts in self.drafter.draft(batch, hidden_ND, wanted).items():
                sequence.drafts = allowed(sequence, drafts)
        if self.adaptive is not None and batch.decoding_only:
            drafted = any(item.drafts for item in batch.scheduled)
            draft_s = time.perf_counter() - begin
            self.adaptive.record(size, tokens, model_s=model_s, draft_s=draft_s, drafted=drafted)
