"""Speculative decoding between steps, and its pauses while drafts do not make it faster."""

import statistics
import time
from collections import deque
from collections.abc import Callable

from torch import Tensor

from shoestring.engine.scheduler import Batch
from shoestring.engine.sequence import Failures, Sequence
from shoestring.engine.speculate import Drafter


class AdaptiveSpeculation:
    """The decision whether to draft, from measured times, for each number of sequences up to a power of two.

    It compares tokens per sequence and second of steps with and without drafts. While drafts are slower it
    pauses, each time twice as long, and then tries again.
    """

    PLAIN_STEPS, TRIAL_STEPS, REFRESH_STEPS = 8, 24, 512
    FIRST_PAUSE, LONGEST_PAUSE = 128, 8192

    def __init__(self) -> None:
        self._sizes: dict[int, _Trial] = {}

    def depth(self, num_sequences: int, depth: int) -> int | None:
        """The tokens to draft now: `depth`, 0 (to measure steps without drafts), or None (pause)."""
        trial = self._trial(num_sequences)
        if trial.pause > 0:
            return None
        return 0 if len(trial.plain_s) < self.PLAIN_STEPS else depth

    def record(
        self, num_sequences: int, tokens: int, *, model_s: float, draft_s: float, has_drafts: bool
    ) -> None:
        """Add the times of one step in which all sequences decoded, with drafts to verify or without."""
        trial = self._trial(num_sequences)
        trial.pause = max(trial.pause - 1, 0)
        if not has_drafts:
            trial.plain_s.append(model_s)
            return
        trial.drafted_s.append(model_s + draft_s)
        trial.tokens.append(tokens / num_sequences)
        trial.steps += 1
        if trial.steps % self.TRIAL_STEPS == 0 and trial.gain() < 1:
            trial.pause = trial.next_pause
            trial.next_pause = min(2 * trial.next_pause, self.LONGEST_PAUSE)
            trial.clear()
        elif trial.steps % self.REFRESH_STEPS == 0:
            trial.next_pause = self.FIRST_PAUSE
            trial.clear()

    def gain(self, num_sequences: int) -> float | None:
        """Speed with drafts relative to speed without, once both were measured."""
        trial = self._trial(num_sequences)
        return trial.gain() if trial.plain_s and trial.drafted_s else None

    def _trial(self, num_sequences: int) -> "_Trial":
        return self._sizes.setdefault((num_sequences - 1).bit_length(), _Trial(self))


class _Trial:
    """Measurements for one size of batch."""

    def __init__(self, limits: AdaptiveSpeculation) -> None:
        self.plain_s: deque[float] = deque(maxlen=limits.PLAIN_STEPS)
        self.drafted_s: deque[float] = deque(maxlen=limits.TRIAL_STEPS)
        self.tokens: deque[float] = deque(maxlen=limits.TRIAL_STEPS)
        self.steps, self.pause, self.next_pause = 0, 0, limits.FIRST_PAUSE

    def gain(self) -> float:
        plain_s, drafted_s = statistics.median(self.plain_s), statistics.median(self.drafted_s)
        return statistics.fmean(self.tokens) * plain_s / drafted_s

    def clear(self) -> None:
        self.plain_s.clear()
        self.drafted_s.clear()
        self.tokens.clear()


class Speculation:
    """Speculative decoding: between two steps the drafter drafts tokens for the next one to verify."""

    def __init__(
        self, drafter: Drafter, *, num_speculative_tokens: int, adaptive: AdaptiveSpeculation | None
    ) -> None:
        """Without `adaptive` it drafts after every step."""
        self.drafter, self.adaptive = drafter, adaptive
        self.failures = Failures()
        self.num_speculative_tokens = num_speculative_tokens

    def prepare(
        self,
        batch: Batch,
        hidden_ND: Tensor,
        filter_drafts: Callable[[Sequence, list[int]], list[int]],
        *,
        tokens: int,
        model_s: float,
    ) -> None:
        """Give drafts, filtered, to the sequences of a committed batch.

        The batch gave `tokens` tokens and took `model_s` seconds. A sequence for which something raises is
        in `failures`.
        """
        begin, size = time.perf_counter(), len(batch.items)
        depth: int | None = self.num_speculative_tokens
        if self.adaptive is not None:
            depth = self.adaptive.depth(size, self.num_speculative_tokens)
        if depth is not None:
            for sequence, drafts in self._draft(batch, hidden_ND, depth).items():
                try:
                    sequence.drafts = filter_drafts(sequence, drafts)
                except Exception as error:
                    self.failures.add(sequence, error)
        if self.adaptive is not None and batch.is_decode_only:
            has_drafts = any(item.drafts for item in batch.items)
            draft_s = time.perf_counter() - begin
            self.adaptive.record(size, tokens, model_s=model_s, draft_s=draft_s, has_drafts=has_drafts)

    def _draft(self, batch: Batch, hidden_ND: Tensor, depth: int) -> dict[Sequence, list[int]]:
        """The drafts of a batch; if they cannot be made, those of each sequence that they can be made for."""
        try:
            return self.drafter.draft(batch, hidden_ND, depth)
        except Exception:
            drafts: dict[Sequence, list[int]] = {}
            begin = 0
            for item in batch.items:
                try:
                    drafts |= self.drafter.draft(Batch((item,)), hidden_ND[begin : begin + item.count], depth)
                except Exception as error:
                    self.failures.add(item.sequence, error)
                begin += item.count
            return drafts
