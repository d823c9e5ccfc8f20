"""The runner: a batch as one flat list of rows -> hidden states, and logits of the rows to sample."""

from collections.abc import Mapping
from collections.abc import Sequence as Listing
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from shoestring.engine.paged_cache import PagedCache, RowIndex
from shoestring.engine.routed_experts import RoutedExperts
from shoestring.engine.scheduler import Batch
from shoestring.engine.sequence import Sequence
from shoestring.kernels import Routing
from shoestring.model.memory import PAGE_SIZE
from shoestring.model.transformer import Features, Transformer

IntArray = np.ndarray[tuple[int, ...], np.dtype[np.int64]]
TableRows = np.ndarray[tuple[int, ...], np.dtype[np.int32]]


@dataclass(slots=True)  # not frozen: one is made for each token
class Span:
    """`count` rows of a running sequence from position `start`."""

    sequence: Sequence
    start: int
    count: int


@dataclass(slots=True)
class Rows:
    """Rows of a batch that pass through one model: their spans and token ids, and their places in it."""

    spans: list[Span] = field(default_factory=list)
    ids: list[int] = field(default_factory=list)
    places: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class StepResult:
    """Hidden states of all N rows of a batch, and the logits of those to sample, in order."""

    hidden_ND: Tensor
    logits_NW: Tensor
    routings: Mapping[int, Routing] = field(default_factory=dict)
    """The experts of the rows by MoE layer; empty for a batch of several adapters."""


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
        unused_ids: Listing[int] = (),
    ) -> None:
        """`unused_ids` are rows of the embedding that no token has: their logits are always -inf."""
        self.model, self.cache, self.routed_experts = model, cache, routed_experts
        self.adapters: dict[str, Transformer] = {}
        """The model with each adapter's weights, by the name that requests give."""
        self._unused_ids = torch.tensor(unused_ids, device=model.device) if unused_ids else None
        self._table_BM = np.zeros((max_num_seqs, max_pages), dtype=np.int32)
        self._owners: list[tuple[Sequence | None, int]] = [(None, 0)] * max_num_seqs
        self._num_entries = [0] * max_num_seqs  # pages of the owner that its row holds

    def run(self, batch: Batch) -> StepResult:
        """One pass through the main layers for each adapter; every row's cache entries are written."""
        if batch.page_copies:
            self._copy_pages(batch.page_copies)
        groups: dict[str, Rows] = {}
        sampled_rows: list[int] = []
        end = 0
        for item in batch.items:
            rows = groups.setdefault(item.sequence.request.adapter, Rows())
            rows.spans.append(Span(item.sequence, item.start, item.count))
            if item.count == 1:
                rows.ids.append(item.sequence.token_ids[item.start])
            else:
                rows.ids += item.ids()
            rows.places += range(end, end + item.count)
            end += item.count
            sampled_rows += range(end - item.num_sampled, end)
        hidden_ND, routings = self._hidden(groups)
        sampled_ND = hidden_ND if len(sampled_rows) == end else hidden_ND[sampled_rows]
        return StepResult(hidden_ND, self.logits(sampled_ND), routings)

    def _copy_pages(self, copies: Listing[tuple[int, int]]) -> None:
        """Copy all entries of pages, and the experts of their tokens, to others."""
        sources, targets = torch.tensor(copies, device=self.model.device).unbind(1)
        for entries in self.cache.entries:
            for tensor in entries.values():
                tensor.index_copy_(0, targets, tensor[sources])
        if self.routed_experts is not None:
            self.routed_experts.copy_pages(sources, targets)

    def _hidden(self, groups: dict[str, Rows]) -> tuple[Tensor, Mapping[int, Routing]]:
        """Hidden states of the rows in their order, each from the model of its adapter, and their experts."""
        features = [self._pass(adapter, rows) for adapter, rows in groups.items()]
        if len(features) == 1:
            return features[0].hidden_BTD[0], features[0].routings
        places = torch.tensor([place for rows in groups.values() for place in rows.places])
        hidden_ND = torch.cat([each.hidden_BTD[0] for each in features])
        return hidden_ND[places.argsort().to(hidden_ND.device)], {}

    def _pass(self, adapter: str, rows: Rows) -> Features:
        ids_BT = torch.tensor([rows.ids], device=self.model.device)
        return self.features(adapter, ids_BT, self.index(rows.spans))

    def features(self, adapter: str, ids_BT: Tensor, index: RowIndex) -> Features:
        """One pass of rows through the main layers of an adapter's model; their cache entries are written."""
        model = self.adapters[adapter] if adapter else self.model
        features = model.features(ids_BT, self.cache.at(index), index.positions_BT)
        if self.routed_experts is not None:
            self.routed_experts.store(features.routings, index.slot_N)
        return features

    def logits(self, hidden_ND: Tensor) -> Tensor:
        """The logits (N, W) of hidden states."""
        logits_NW = self.model.logits(hidden_ND[None])[0]
        if self._unused_ids is not None:
            logits_NW.index_fill_(1, self._unused_ids, -torch.inf)
        return logits_NW

    def index(self, spans: Listing[Span]) -> RowIndex:
        """Positions, slots and page tables of these rows; each span's pages must reach its end."""
        for span in spans:
            sequence, owner = span.sequence, self._owners[span.sequence.table_row]
            is_filled = owner[0] is sequence and owner[1] == sequence.num_admissions
            if not is_filled or self._num_entries[sequence.table_row] < len(sequence.page_ids):
                self.fill(sequence)
        counts = np.array([span.count for span in spans])
        sequence_N = np.repeat(np.array([span.sequence.table_row for span in spans], dtype=np.int32), counts)
        begins = np.array([span.start for span in spans]) - (counts.cumsum() - counts)
        return self.index_at(np.repeat(begins, counts) + np.arange(len(sequence_N)), sequence_N)

    def index_at(self, positions_N: IntArray, sequence_N: TableRows) -> RowIndex:
        """The same for rows at these positions of sequences with these rows of the page table."""
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

    def fill(self, sequence: Sequence) -> None:
        """Bring the sequence's row of the page table up to date, writing only the new pages."""
        row, owner = sequence.table_row, (sequence, sequence.num_admissions)
        first, end = self._num_entries[row] if self._owners[row] == owner else 0, len(sequence.page_ids)
        if first < end or self._owners[row] != owner:
            self._table_BM[row, first:end] = sequence.page_ids[first:]
            self._owners[row], self._num_entries[row] = owner, end
