"""Drafters of the next tokens, from the text so far or by the MTP module; the next step verifies drafts."""

from collections.abc import Callable
from typing import Protocol
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from shoestring.engine.runner import Runner, Span
from shoestring.engine.scheduler import Batch
from shoestring.engine.sequence import Sequence

Reserve = Callable[[Sequence, int], bool]
"""Scheduler.reserve: pages for a sequence's positions below a length."""


class Drafter(Protocol):
    """A source of drafts; they change the speed and never the result."""

    def draft(self, batch: Batch, hidden_ND: Tensor, depth: int) -> dict[Sequence, list[int]]:
        """Up to `depth` tokens for each running sequence that decodes next; depth 0 only follows the batch.

        `batch` has just been committed and `hidden_ND` are its rows' hidden states.
        """
        ...


def room(sequence: Sequence, depth: int) -> int:
    """Drafts that a sequence can use, at most `depth`: none before its prompt is done, none past its end."""
    if sequence.num_uncomputed_tokens != 1:
        return 0
    return min(depth, sequence.max_length - len(sequence.token_ids) - 1)


class PromptLookup:
    """Drafts of the tokens that followed the newest ones at their last occurrence (Saxena, 2023)."""

    LENGTHS = (4, 3, 2)

    def __init__(self) -> None:
        # For each sequence: the number of tokens in its index, and the position behind each run's last place.
        self._indices: WeakKeyDictionary[Sequence, tuple[int, dict[tuple[int, ...], int]]]
        self._indices = WeakKeyDictionary()

    def draft(self, batch: Batch, hidden_ND: Tensor, depth: int) -> dict[Sequence, list[int]]:
        """See Drafter.draft."""
        drafts = {}
        for item in batch.items:
            count = room(item.sequence, depth) if item.sequence.is_running else 0
            if count > 0 and (token_ids := self._look_up(item.sequence, count)):
                drafts[item.sequence] = token_ids
        return drafts

    def _look_up(self, sequence: Sequence, count: int) -> list[int]:
        ids = sequence.token_ids
        num_indexed, index = self._indices.get(sequence, (0, {}))
        for end in range(max(num_indexed, 1), len(ids)):  # runs that end before the newest token
            for length in self.LENGTHS:
                if length <= end:
                    index[tuple(ids[end - length : end])] = end
        self._indices[sequence] = (len(ids), index)
        for length in self.LENGTHS:
            place = index.get(tuple(ids[-length:]))
            if place is not None:
                return ids[place : place + count]
        return []


class MTPDrafter:
    """The model's first MTP module, applied to its own states for drafts beyond the next (V3 section 2.2).

    It has entries in the paged cache like a layer: at position t from the state at t and token t + 1. The
    entry at a shared page's last position may come from another continuation, which lowers acceptance only.
    """

    def __init__(self, runner: Runner, reserve: Reserve) -> None:
        self._runner, self._reserve = runner, reserve
        # A sequence's admission, and the position up to which its entries are complete since then.
        self._progress: WeakKeyDictionary[Sequence, tuple[int, int]] = WeakKeyDictionary()

    def draft(self, batch: Batch, hidden_ND: Tensor, depth: int) -> dict[Sequence, list[int]]:
        """See Drafter.draft."""
        spans, rows, next_ids = self._follow(batch)
        if not spans:
            return {}
        rows_ND = hidden_ND if len(rows) == len(hidden_ND) else hidden_ND[rows]
        states_ND = self._step(rows_ND, next_ids, spans)
        ends = torch.tensor([span.count for span in spans]).cumsum(0) - 1
        drafting = [n for n, span in enumerate(spans) if room(span.sequence, depth) > 0]
        return self._extend([spans[n].sequence for n in drafting], states_ND[ends[drafting]], depth)

    def _follow(self, batch: Batch) -> tuple[list[Span], list[int], list[int]]:
        """The accepted rows of every sequence whose entries are complete, and the tokens after them."""
        spans: list[Span] = []
        rows: list[int] = []
        next_ids: list[int] = []
        first = 0
        for item in batch.items:
            sequence, start = item.sequence, item.start
            count = min(sequence.num_computed_tokens - start, item.count) if sequence.is_running else 0
            progress = (sequence.num_admissions, start)
            is_complete = start == sequence.first_computed or self._progress.get(sequence) == progress
            if count > 0 and is_complete:
                self._progress[sequence] = (sequence.num_admissions, start + count)
                spans.append(Span(sequence, start, count))
                rows += range(first, first + count)
                next_ids += sequence.token_ids[start + 1 : start + count + 1]
            first += item.count
        return spans, rows, next_ids

    def _extend(self, sequences: list[Sequence], states_ND: Tensor, depth: int) -> dict[Sequence, list[int]]:
        """Draft the likeliest next token, then go on from the module's own states while there is room."""
        drafts: dict[Sequence, list[int]] = {sequence: [] for sequence in sequences}
        for ahead in range(depth):
            if not sequences:
                break
            ids = self._runner.model.logits(states_ND[None])[0].argmax(-1).tolist()
            for sequence, token_id in zip(sequences, ids, strict=True):
                drafts[sequence].append(token_id)
            length = {sequence: len(sequence.token_ids) + ahead for sequence in sequences}
            remaining = [
                n
                for n, sequence in enumerate(sequences)
                if room(sequence, depth) > ahead + 1 and self._reserve(sequence, length[sequence])
            ]
            sequences = [sequences[n] for n in remaining]
            if sequences:
                spans = [Span(sequence, length[sequence] - 1, 1) for sequence in sequences]
                states_ND = self._step(states_ND[remaining], [ids[n] for n in remaining], spans)
        return drafts

    def _step(self, hidden_ND: Tensor, next_ids: list[int], spans: list[Span]) -> Tensor:
        index, model = self._runner.index(spans), self._runner.model
        ids_BT = torch.tensor([next_ids], device=model.device)
        view = self._runner.cache.at(index)
        return model.mtp_features(hidden_ND[None], ids_BT, 0, view, index.positions_BT).hidden_BTD[0]
