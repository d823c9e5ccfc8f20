"""The runner: a batch as one flat list of rows -> hidden states, and logits of the rows to sample."""

from collections.abc import Sequence as Listing
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from shoestring.engine.paged_cache import PagedCache, RowIndex
from shoestring.engine.routed_experts import RoutedExperts
from shoestring.engine.scheduler import Batch
from shoestring.engine.sequence import Sequence
from shoestring.model.memory import PAGE_SIZE
from shoestring.model.transformer import Transformer


@dataclass(slots=True)  # not frozen: one is made for each token
class Span:
    """`count` rows of a running sequence from position `start`."""

    sequence: Sequence
    start: int
    count: int


@dataclass(frozen=True, slots=True)
class StepResult:
    """Hidden states of all N rows of a batch, and the logits of those to sample, in order."""

    hidden_ND: Tensor
    logits_NW: Tensor


class Runner:
    """The page table of the running sequences, and passes of their batches through the model."""

    def __init__(
        self,
        model: Transformer,
        cache: PagedCache,
        *,
        max_num_seqs: int,
        max_pages: int,
        routed_experts: RoutedExperts | None = None,
    ) -> None:
        self.model, self.cache, self.routed_experts = model, cache, routed_experts
        self._table_BM = np.zeros((max_num_seqs, max_pages), dtype=np.int32)
        self._owners: list[tuple[Sequence | None, int]] = [(None, 0)] * max_num_seqs
        self._num_entries = [0] * max_num_seqs  # pages of the owner that its row holds

    def run(self, batch: Batch) -> StepResult:
        """One pass through the main layers; every row's cache entries are written."""
        spans = [Span(item.sequence, item.start, item.count) for item in batch.items]
        ids: list[int] = []
        sampled_rows: list[int] = []
        end = 0
        for item in batch.items:
            ids += item.ids()
            end += item.count
            sampled_rows += range(end - item.num_sampled, end)
        index = self.index(spans)
        ids_BT = torch.tensor([ids], device=self.model.device)
        features = self.model.features(ids_BT, self.cache.at(index), index.positions_BT)
        if self.routed_experts is not None:
            self.routed_experts.store(features.routings, index.slot_N)
        hidden_ND = features.hidden_BTD[0]
        sampled_ND = hidden_ND if len(sampled_rows) == end else hidden_ND[sampled_rows]
        return StepResult(hidden_ND, self.logits(sampled_ND))

    def logits(self, hidden_ND: Tensor) -> Tensor:
        """The logits (N, W) of hidden states."""
        return self.model.logits(hidden_ND[None])[0]

    def index(self, spans: Listing[Span]) -> RowIndex:
        """Positions, slots and page tables of these rows; each span's pages must reach its end."""
        for span in spans:
            self._fill(span.sequence)
        counts = np.array([span.count for span in spans])
        sequence_N = np.repeat(np.array([span.sequence.table_row for span in spans], dtype=np.int32), counts)
        begins = np.array([span.start for span in spans]) - (counts.cumsum() - counts)
        positions_N = np.repeat(begins, counts) + np.arange(len(sequence_N))
        slot_N = self._table_BM[sequence_N, positions_N // PAGE_SIZE].astype(np.int64) * PAGE_SIZE
        slot_N += positions_N % PAGE_SIZE
        device = self.model.device
        return RowIndex(
            positions_BT=torch.from_numpy(positions_N)[None].to(device),
            slot_N=torch.from_numpy(slot_N).to(device),
            tables_BU=torch.from_numpy(self._table_BM).to(device),
            sequence_N=torch.from_numpy(sequence_N).to(device),
            lengths_N=torch.from_numpy((positions_N + 1).astype(np.int32)).to(device),
        )

    def _fill(self, sequence: Sequence) -> None:
        """Bring the sequence's row of the page table up to date, writing only the new pages."""
        row, owner = sequence.table_row, (sequence, sequence.num_admissions)
        first, end = self._num_entries[row] if self._owners[row] == owner else 0, len(sequence.page_ids)
        if first < end or self._owners[row] != owner:
            self._table_BM[row, first:end] = sequence.page_ids[first:]
            self._owners[row], self._num_entries[row] = owner, end
