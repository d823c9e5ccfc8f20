"""Encoded conversations: split, shuffled, and padded in batches of similar length for fine-tuning.

DeepSeek-V3 packs conversations into rows and masks attention between them (arXiv 2412.19437, section 5.1).
Causal attention with padding on the right computes the same without a mask. So here a step's conversations
are sorted by length and cut into batches, of which at most a tenth is padding unless they are small.

Packing would save that padding and nothing else: of LLaMA-Factory's alpaca_en_demo 8% of the work, of its
glaive_toolcall_en_demo 3% (16,384 tokens a step, 4,096 a pass). On two cores, attention over one row of 16
packed conversations of 200 to 260 tokens with a block-diagonal mask took 6 to 9 times as long as over the
padded batch, of which 11% is padding (9 heads of 64, forward and backward).
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shoestring.data.chat.mixture import draw
from shoestring.data.packing import IGNORE_INDEX
from shoestring.errors import DataError

MAX_PADDING = 0.1
"""Largest share of a batch that is padding."""
SPARE_TOKENS = 256
"""Padding that is always allowed: it costs less than another pass through the model."""
WINDOW, RUN = 4096, 64
"""Conversations that are sorted by length together, and those of them that stay in sequence."""


@dataclass(frozen=True, kw_only=True)
class ConversationBatch:
    """Conversations of similar length, padded on the right; each row's targets are its next ids."""

    inputs: NDArray[np.int64]  # (B, T)
    targets: NDArray[np.int64]  # (B, T), IGNORE_INDEX where the row has ended
    loss_mask: NDArray[np.bool_]  # (B, T): targets that the loss counts


@dataclass(frozen=True)
class Conversations:
    """Encoded conversations back to back: 5 bytes per token in memory."""

    ids: NDArray[np.int32]  # (tokens,)
    loss_mask: NDArray[np.bool_]  # (tokens,): ids that the loss counts as targets
    ends: NDArray[np.int64]  # (conversations,)
    text_bytes: NDArray[np.int64]  # (conversations,): UTF-8 bytes of the text in the loss
    digests: NDArray[np.uint64]  # (conversations,): of the ids
    manifest: Mapping[str, Any]
    """Each file with its hash and counts."""
    turn_ends: tuple[int, ...]
    """Special tokens at the end of the assistant's turns, where generation has to stop."""
    source_of: NDArray[np.int64] | None = (
        None  # (conversations,): number of its source; None: all of the first
    )
    weights: tuple[float, ...] = (1.0,)
    """Passes over the conversations of each source in an epoch."""

    def __len__(self) -> int:
        return len(self.ends)

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        """Number of inputs of each: one less than its ids.  # (conversations,)"""
        return np.diff(self.ends, prepend=0) - 1

    @cached_property
    def key(self) -> str:
        """Hash of the ids and the loss mask."""
        return hashlib.sha256(self.digests.tobytes() + self.loss_mask.tobytes()).hexdigest()

    def split(self, share: float) -> tuple[list[int], list[int]]:
        """Numbers of the conversations to train on and to hold out: about `share`, at least one.

        Equal conversations are on the same side. Raises DataError if none is left to train on.
        """
        limit = -1
        if share:
            count = max(1, round(share * len(self)))
            limit = int(np.sort(self.digests)[count - 1])
        heldout = [number for number in range(len(self)) if int(self.digests[number]) <= limit]
        train = sorted(set(range(len(self))) - set(heldout))
        if not train:
            raise DataError(f"all {len(self)} conversations would be held out; add some, or hold out fewer")
        return train, heldout

    def batches(self, numbers: Sequence[int], tokens: int) -> Iterator[ConversationBatch]:
        """The conversations in padded batches of at most `tokens` inputs (or one row), the longest first."""
        order = sorted(numbers, key=lambda number: (-self.lengths[number], number))
        rows: list[int] = []
        tokens_in_rows = 0
        for number in order:
            width, length = int(self.lengths[rows[0]]) if rows else 0, int(self.lengths[number])
            area = (len(rows) + 1) * width
            if rows and (
                area > tokens or area - tokens_in_rows - length > max(MAX_PADDING * area, SPARE_TOKENS)
            ):
                yield self._batch(rows)
                rows, tokens_in_rows = [], 0
            rows.append(number)
            tokens_in_rows += length
        if rows:
            yield self._batch(rows)

    def _batch(self, numbers: Sequence[int]) -> ConversationBatch:
        shape = (len(numbers), int(self.lengths[numbers[0]]))
        inputs, targets = np.zeros(shape, dtype=np.int64), np.full(shape, IGNORE_INDEX, dtype=np.int64)
        loss_mask = np.zeros(shape, dtype=np.bool_)
        for row, number in enumerate(numbers):
            end, length = int(self.ends[number]), int(self.lengths[number])
            whole = slice(end - length - 1, end)
            inputs[row, :length] = self.ids[whole][:-1]
            targets[row, :length] = self.ids[whole][1:]
            loss_mask[row, :length] = self.loss_mask[whole][1:]
        return ConversationBatch(inputs=inputs, targets=targets, loss_mask=loss_mask)


class Order:
    """Endless order of conversations: epoch after epoch, each shuffled by (seed, epoch); resumable.

    With weights an epoch has the conversations of each source as often as `mixture.draw` says.
    """

    def __init__(self, conversations: Conversations, numbers: Sequence[int], *, seed: int) -> None:
        self.numbers, self.seed = np.array(numbers, dtype=np.int64), seed
        self.weights = conversations.weights
        origins = conversations.source_of
        self._source_of = np.zeros(len(conversations), dtype=np.int64) if origins is None else origins
        self._lengths = conversations.lengths
        self.key = conversations.key
        self.epoch, self.place = 0, 0
        self._epoch_order = self._shuffle()

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Number of inputs of each conversation that is learned from.  # (conversations,)"""
        return self._lengths[self.numbers]

    @property
    def tokens_per_epoch(self) -> int:
        """Inputs of an epoch; with weights on average."""
        by_source = np.bincount(self._source_of[self.numbers], self.lengths, len(self.weights))
        return max(1, round(float(by_source @ np.array(self.weights))))

    def take(self, tokens: int, *, last: bool = False) -> list[int]:
        """The next conversations: nearest to `tokens` inputs; for the `last` step at least so many."""
        numbers: list[int] = []
        total = 0
        while True:
            number = int(self._epoch_order[self.place])
            length = int(self._lengths[number])
            if numbers and not last and total + length / 2 > tokens:
                return numbers
            numbers.append(number)
            total += length
            self.place += 1
            if self.place == len(self._epoch_order):
                self.epoch, self.place = self.epoch + 1, 0
                self._epoch_order = self._shuffle()
            if total >= tokens:
                return numbers

    def state(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "place": self.place, "seed": self.seed, "data": self.key}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Continue at the position of `state`; DataError if the conversations or the seed are others now."""
        if (state["seed"], state["data"]) != (self.seed, self.key):
            raise DataError(
                "the conversations, their template or the seed changed since the run was saved; "
                "put the files back as they were, or start anew in another --out"
            )
        self.epoch, self.place = int(state["epoch"]), int(state["place"])
        self._epoch_order = self._shuffle()

    def _shuffle(self) -> NDArray[np.int64]:
        """A random order; many conversations stay in runs of similar length, for little padding."""
        numbers = self._draw()
        rng = np.random.default_rng([self.seed, self.epoch])
        order = rng.permutation(len(numbers))
        if len(order) < WINDOW:
            return numbers[order]
        lengths = self._lengths[numbers]
        runs: list[NDArray[np.int64]] = []
        for window in np.array_split(order, len(order) // WINDOW):
            by_length = window[np.argsort(lengths[window], kind="stable")]
            runs += np.array_split(by_length, len(by_length) // RUN)
        return numbers[np.concatenate([runs[i] for i in rng.permutation(len(runs))])]

    def _draw(self) -> NDArray[np.int64]:
        """The conversations of this epoch; epochs for which small weights leave nothing are passed over."""
        if all(weight == 1.0 for weight in self.weights):
            return self.numbers
        while True:
            numbers = draw(self.numbers, self._source_of, self.weights, seed=self.seed, epoch=self.epoch)
            if len(numbers):
                return numbers
            self.epoch += 1
