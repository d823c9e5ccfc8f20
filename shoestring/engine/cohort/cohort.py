"""A cohort of plain sequences: a step decodes a token of each, and Python works only for those that end."""

import time
from collections.abc import Collection, Mapping
from collections.abc import Sequence as Listing

import numpy as np
import torch

from shoestring import kernels
from shoestring.engine import draw
from shoestring.engine.cohort.members import Members
from shoestring.engine.draw import NO_TOKEN, SampledTokens
from shoestring.engine.output import CompletionState
from shoestring.engine.runner import Runner
from shoestring.engine.scheduler import Scheduler
from shoestring.engine.sequence import Sequence
from shoestring.model.memory import PAGE_SIZE

RECORD_STEPS = 128
"""Steps after which a cohort is dissolved, and may form again: what it records stays small."""

Leaving = dict[Sequence, SampledTokens]
"""The tokens of each sequence that leaves, which its own lists do not have yet."""


class Cohort:
    """Running sequences that decode together, with the tokens of batches to the bit.

    New tokens stay in arrays until a sequence leaves: given to each sequence in every step, they would take
    as long as a small model.
    """

    def __init__(self, scheduler: Scheduler, runner: Runner, completions: Listing[CompletionState]) -> None:
        self._runner, self._scheduler = runner, scheduler
        sequences = [each.sequence for each in completions]
        self._adapter = sequences[0].request.adapter
        self.last_token_s = completions[0].last_token_s or time.monotonic()
        """The time at which the newest tokens were sampled."""
        end_ids = [each.end_ids for each in completions]
        stops = {ids: number for number, ids in enumerate(dict.fromkeys(end_ids))}
        self._is_end_SW = np.zeros((len(stops), runner.model.config.vocab_size), dtype=bool)
        for ids, number in stops.items():
            self._is_end_SW[number, list(ids)] = True
        self._members = Members.of(sequences, [stops[ids] for ids in end_ids])
        self._ids_TM = np.empty((RECORD_STEPS, len(sequences)), dtype=np.int64)
        self._logps_TM = np.empty((RECORD_STEPS, len(sequences)))
        self._num_steps = 0

    @classmethod
    def form(
        cls,
        scheduler: Scheduler,
        runner: Runner,
        completions: Mapping[Sequence, CompletionState],
        constrained: Collection[Sequence],
    ) -> "Cohort | None":
        """A cohort of all running sequences, if they and nothing else would be in the next batch.

        Each draws by logits and temperature alone, with the same weights, and nobody reads its text early.
        """
        running = scheduler.running
        if not running or not all(each.is_plain and each.params.is_read_at_end for each in running):
            return None
        adapters = {each.request.adapter for each in running}
        if len(adapters) > 1 or not scheduler.only_decodes or any(each in constrained for each in running):
            return None
        cohort = cls(scheduler, runner, [completions[each] for each in running])
        return cohort if cohort.goes_on else None

    def __len__(self) -> int:
        return len(self._members)

    @property
    def goes_on(self) -> bool:
        """Return whether the next step may be one of this cohort; pages for its tokens are allocated here."""
        is_full = self._num_steps == RECORD_STEPS
        return len(self) > 0 and not is_full and not self._scheduler.may_admit and self._make_room()

    def step(self) -> Leaving:
        """Decode a token of each member; those that end leave."""
        m, runner = self._members, self._runner
        index = runner.index_at(m.lengths_M - 1, m.table_rows_M)
        ids_BT = torch.from_numpy(m.ids_M)[None].to(runner.model.device)
        logits_NW = runner.logits(runner.features(self._adapter, ids_BT, index).hidden_BTD[0])
        indices_M = torch.from_numpy(m.lengths_M - m.prompts_M)
        numbers_M = kernels.uniform_numbers(torch.from_numpy(m.seeds_M), indices_M)
        columns = (x.to(logits_NW.device) for x in (torch.from_numpy(m.temperatures_M), numbers_M))
        ids_N, logp_N = kernels.sample_tokens(logits_NW, *columns)
        m.ids_M[:] = ids_N.numpy(force=True)
        self._ids_TM[self._num_steps, m.columns_M] = m.ids_M
        self._logps_TM[self._num_steps, m.columns_M] = logp_N.numpy(force=True)
        self._num_steps += 1
        self.last_token_s = time.monotonic()
        m.lengths_M[:] += 1
        is_failed_M = m.ids_M == NO_TOKEN
        is_last_M = self._is_end_SW[m.stops_M, m.ids_M] | (m.lengths_M >= m.limits_M) | is_failed_M
        if not is_last_M.any():
            return {}
        largest = {n: float(logits_NW[n].max()) for n in np.flatnonzero(is_failed_M).tolist()}
        return self._leave(is_last_M, {n: draw.no_token(value) for n, value in largest.items()})

    def dissolve(self) -> Leaving:
        """Let all members leave."""
        return self._leave(np.ones(len(self), dtype=bool), {})

    def _leave(self, leaves_M: np.ndarray, errors: Mapping[int, str]) -> Leaving:
        m, leaving = self._members, Leaving()
        places = np.flatnonzero(leaves_M)
        ids_MT = self._ids_TM[: self._num_steps, m.columns_M[places]].T.tolist()
        logps_MT = self._logps_TM[: self._num_steps, m.columns_M[places]].T.tolist()
        for place, ids, logps in zip(places.tolist(), ids_MT, logps_MT, strict=True):
            sequence = m.sequences[place]
            end = len(ids) - (place in errors)
            has_logprobs = sequence.params.has_logprobs
            tokens = SampledTokens(ids[:end], logps[:end] if has_logprobs else [], error=errors.get(place))
            leaving[sequence] = tokens
        self._members = m.at(np.flatnonzero(~leaves_M))
        return leaving

    def _make_room(self) -> bool:
        """Allocate pages for the newest tokens; False, changing nothing, if not enough are free."""
        m, scheduler = self._members, self._scheduler
        places = np.flatnonzero(m.lengths_M > m.pages_M * PAGE_SIZE).tolist()
        if len(places) > scheduler.pool.num_free:
            return False
        for place in places:
            sequence = m.sequences[place]
            scheduler.extend(sequence, int(m.lengths_M[place]))
            self._runner.fill(sequence)
            m.pages_M[place] = len(sequence.page_ids)
        return True
