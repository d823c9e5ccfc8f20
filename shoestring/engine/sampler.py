"""The sampler: logits of a batch -> the tokens each sequence keeps, drafts verified, with their logprobs."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from shoestring.engine import draw
from shoestring.engine.request import Logprob
from shoestring.engine.scheduler import Batch, ScheduledSequence
from shoestring.engine.sequence import Sequence
from shoestring.errors import ShoestringError

if TYPE_CHECKING:
    from shoestring.engine.constrain.grammars import Matcher

NOTHING = -1
"""In place of a token id where none can be chosen."""


@dataclass(slots=True)
class Sampled:
    """What one sequence got: its next tokens, and why it cannot go on, if so."""

    ids: list[int]
    token_logprobs: list[float] = field(default_factory=list)
    """One per id if the request asked for logprobs."""
    logprobs: list[dict[int, Logprob]] = field(default_factory=list)
    """Likewise if it asked for the likeliest tokens'."""
    error: str | None = None


class Row(NamedTuple):
    """One row of logits: the token after the known ones and the first `ahead` drafts of `item`."""

    item: ScheduledSequence
    sequence: Sequence
    ahead: int

    @property
    def output_index(self) -> int:
        """Which generated token this row chooses, from 0."""
        return self.sequence.num_output + self.ahead


@dataclass(slots=True)
class _History:
    """How often each token is in a sequence's output, and which are in its prompt; kept up to date lazily."""

    counts_W: Tensor
    prompt_W: Tensor
    counted: int = 0


class Sampler:
    """Draws token i of a request by a number that depends on its seed and i only, so neither the other rows
    nor drafts nor a preemption changes it.

    A draft is kept while it equals the token drawn in its place; for drafts that are certain guesses this
    keeps exactly as many as rejection sampling would (Leviathan et al., arXiv 2211.17192).
    """

    def __init__(
        self, *, eos_ids: frozenset[int] = frozenset(), token_text: Callable[[int], str] | None = None
    ) -> None:
        self.eos_ids, self._token_text = eos_ids, token_text
        self.matchers: WeakKeyDictionary[Sequence, Matcher] = WeakKeyDictionary()
        """The grammar state of each constrained sequence."""
        self._histories: WeakKeyDictionary[Sequence, _History] = WeakKeyDictionary()

    def sample(self, logits_NW: Tensor, batch: Batch) -> dict[Sequence, Sampled]:
        """The tokens of every sequence with sampled rows, at least one each unless `error` says why not.

        `logits_NW` are of the batch's sampled rows in order; they are overwritten.
        """
        rows = [
            Row(item, item.sequence, ahead) for item in batch.scheduled for ahead in range(item.num_sampled)
        ]
        if not rows:
            return {}
        raw_NW = self._raw_logprobs(logits_NW, rows)
        errors = self._constrain(logits_NW, rows)
        best_N, chosen_N = logits_NW.max(-1)  # the lowest id of equals
        drawn = [n for n, row in enumerate(rows) if not row.sequence.params.greedy]
        if drawn:
            chosen_N[drawn] = _draw(logits_NW[drawn], [rows[n] for n in drawn])
        chosen = chosen_N.tolist()
        for n, value in enumerate(best_N.tolist()):
            if math.isfinite(value):
                continue
            chosen[n] = NOTHING
            if rows[n].ahead == 0:
                why = "no token is allowed here" if value == -math.inf else "the logits are not finite"
                errors.setdefault(rows[n].sequence, why)
        return self._accept(rows, chosen, errors, raw_NW)

    def _accept(
        self,
        rows: list[Row],
        chosen: list[int],
        errors: dict[Sequence, str],
        raw: tuple[list[int], Tensor] | None,
    ) -> dict[Sequence, Sampled]:
        """Each sequence's tokens up to the first that differs from its draft."""
        sampled: dict[Sequence, Sampled] = {}
        kept_rows: list[int] = []
        for n, (item, sequence, ahead) in enumerate(rows):
            if ahead == 0:
                sampled[sequence] = Sampled([], error=errors.get(sequence))
            got = sampled[sequence]
            # so far every draft before this row was the token drawn in its place
            if got.error is None and chosen[n] != NOTHING and got.ids == list(item.drafts[:ahead]):
                got.ids.append(chosen[n])
                kept_rows.append(n)
        self._consume(sampled)
        if raw is not None:
            self._report(raw, rows, kept_rows, chosen, sampled)
        return sampled

    def _constrain(self, logits_NW: Tensor, rows: list[Row]) -> dict[Sequence, str]:
        """Bias, min_tokens, grammar and penalties of the rows that have any, in place; errors by sequence."""
        for n, row in enumerate(rows):
            params = row.sequence.params
            if params.logit_bias:
                ids = torch.tensor(list(params.logit_bias), device=logits_NW.device)
                logits_NW[n, ids] += torch.tensor(list(params.logit_bias.values()), device=logits_NW.device)
            if row.output_index < params.min_tokens:
                stops = {*params.stop_token_ids, *(() if params.ignore_eos else self.eos_ids)}
                logits_NW[n, list(stops)] = -math.inf
        errors = self._mask(logits_NW, rows) if self.matchers else {}
        penalized = [n for n, row in enumerate(rows) if row.sequence.params.penalized]
        if penalized:
            self._penalize(logits_NW, rows, penalized)
        return errors

    def _mask(self, logits_NW: Tensor, rows: list[Row]) -> dict[Sequence, str]:
        """Apply each constrained row's grammar mask, as if the drafts before it had been accepted."""
        from shoestring.engine.constrain.grammars import apply_mask

        errors: dict[Sequence, str] = {}
        first = {row.item: n for n, row in enumerate(rows) if row.ahead == 0}
        for item, n in first.items():
            matcher = self.matchers.get(item.sequence)
            if matcher is None:
                continue
            try:
                consumed = 0
                for ahead in range(item.num_sampled):
                    apply_mask(logits_NW[n + ahead], matcher.mask())
                    # Behind a draft that the grammar refuses no row will be used.
                    if ahead == len(item.drafts) or not matcher.consume(item.drafts[ahead]):
                        break
                    consumed += 1
                matcher.rollback(consumed)
            except ShoestringError as error:
                errors[item.sequence] = str(error)
        return errors

    def _consume(self, sampled: dict[Sequence, Sampled]) -> None:
        """Move the grammars past the accepted tokens."""
        for sequence, matcher in self.matchers.items():
            got = sampled.get(sequence)
            if got is None or got.error is not None:
                continue
            try:
                for token_id in got.ids:
                    if not matcher.consume(token_id):
                        raise ShoestringError(f"the grammar refused token {token_id}, which its mask allowed")
            except ShoestringError as error:
                sampled[sequence] = Sampled([], error=str(error))

    def _penalize(self, logits_NW: Tensor, rows: list[Row], penalized: list[int]) -> None:
        counts, prompts, penalties = [], [], []
        for n in penalized:
            row, params = rows[n], rows[n].sequence.params
            history = self._history(row.sequence, logits_NW)
            counts_W = history.counts_W
            if row.ahead:
                drafts = torch.tensor(row.item.drafts[: row.ahead], device=counts_W.device)
                counts_W = counts_W + torch.bincount(drafts, minlength=len(counts_W))
            counts.append(counts_W)
            prompts.append(history.prompt_W)
            penalties.append([params.repetition_penalty, params.frequency_penalty, params.presence_penalty])
        penalties_N3 = torch.tensor(penalties, device=logits_NW.device)
        arguments = (torch.stack(counts), torch.stack(prompts), penalties_N3)
        logits_NW[penalized] = draw.penalize(logits_NW[penalized], *arguments)

    def _history(self, sequence: Sequence, logits_NW: Tensor) -> _History:
        width, device = logits_NW.shape[1], logits_NW.device
        history = self._histories.get(sequence)
        if history is None:
            prompt_W = torch.zeros(width, dtype=torch.bool, device=device)
            prompt_W[list(sequence.request.prompt_token_ids)] = True
            history = _History(torch.zeros(width, device=device), prompt_W)
            self._histories[sequence] = history
        new = sequence.token_ids[sequence.prompt_length + history.counted :]
        if new:
            history.counts_W += torch.bincount(torch.tensor(new, device=device), minlength=width)
            history.counted += len(new)
        return history

    def _raw_logprobs(self, logits_NW: Tensor, rows: list[Row]) -> tuple[list[int], Tensor] | None:
        """The rows whose logprobs are asked for, and all their logprobs before anything is changed."""
        asked = [n for n, row in enumerate(rows) if row.sequence.params.logprobs is not None]
        if not asked:
            return None
        return asked, (logits_NW if len(asked) == len(rows) else logits_NW[asked]).log_softmax(-1)

    def _report(
        self,
        raw: tuple[list[int], Tensor],
        rows: list[Row],
        kept_rows: list[int],
        chosen: list[int],
        sampled: dict[Sequence, Sampled],
    ) -> None:
        """Add the logprobs of the accepted tokens, and of the likeliest ones in their places."""
        asked, logp_MW = raw
        kept = set(kept_rows)
        places = [place for place, n in enumerate(asked) if n in kept]
        if not places:
            return
        rows_kept = [asked[place] for place in places]
        logp_MW = logp_MW if len(places) == len(logp_MW) else logp_MW[places]
        chosen_M1 = torch.tensor([chosen[n] for n in rows_kept], device=logp_MW.device)[:, None]
        chosen_logp_M1 = logp_MW.gather(1, chosen_M1)
        wanted = []
        for m, (n, logprob) in enumerate(zip(rows_kept, chosen_logp_M1[:, 0].tolist(), strict=True)):
            sequence = rows[n].sequence
            sampled[sequence].token_logprobs.append(logprob)
            if sequence.params.logprobs:
                wanted.append((m, chosen[n], sequence.params.logprobs, sampled[sequence]))
        if wanted:
            self._report_likeliest(logp_MW, chosen_logp_M1, wanted)

    def _report_likeliest(
        self, logp_MW: Tensor, chosen_logp_M1: Tensor, wanted: list[tuple[int, int, int, Sampled]]
    ) -> None:
        """Add one entry for each `wanted` (row, chosen token, how many likeliest, where to)."""
        places = [m for m, *_ in wanted]
        logp_MW, own_M1 = logp_MW[places], chosen_logp_M1[places]
        ranks = (1 + (logp_MW > own_M1).sum(-1)).tolist()
        top = logp_MW.topk(min(max(count for _, _, count, _ in wanted), logp_MW.shape[1]), dim=-1)
        values, ids, own = top.values.tolist(), top.indices.tolist(), own_M1[:, 0].tolist()
        for m, (_, token_id, count, got) in enumerate(wanted):
            entry = {token_id: self._logprob(token_id, own[m], ranks[m])}
            for rank in range(min(count, len(ids[m]))):
                entry.setdefault(ids[m][rank], self._logprob(ids[m][rank], values[m][rank], rank + 1))
            got.logprobs.append(entry)

    def allowed_drafts(self, sequence: Sequence, drafts: list[int]) -> list[int]:
        """The drafts up to the first that the sequence's grammar refuses."""
        matcher = self.matchers.get(sequence)
        if matcher is None:
            return drafts
        count = 0
        while count < len(drafts) and matcher.consume(drafts[count]):
            count += 1
        matcher.rollback(count)
        return drafts[:count]

    def _logprob(self, token_id: int, logprob: float, rank: int) -> Logprob:
        text = self._token_text(token_id) if self._token_text else None
        return Logprob(logprob=logprob, rank=rank, decoded_token=text)


def _draw(logits_NW: Tensor, rows: list[Row]) -> Tensor:
    """One token for each row by its own number; only the rows that ask for it are sorted."""

    params = [row.sequence.params for row in rows]

    def column(values: list[float] | list[int], dtype: torch.dtype = torch.float64) -> Tensor:
        return torch.tensor(values, dtype=dtype, device=logits_NW.device)

    logits_NW = logits_NW / column([p.temperature for p in params])[:, None]
    cut = [n for n, p in enumerate(params) if p.top_k > 0]
    if cut:
        logits_NW[cut] = draw.keep_top_k(logits_NW[cut], column([params[n].top_k for n in cut], torch.int64))
    probability_NW = logits_NW.softmax(-1)
    cut = [n for n, p in enumerate(params) if p.top_p < 1]
    if cut:
        probability_NW[cut] = draw.keep_top_p(probability_NW[cut], column([params[n].top_p for n in cut]))
    cut = [n for n, p in enumerate(params) if p.min_p > 0]
    if cut:
        probability_NW[cut] = draw.keep_min_p(probability_NW[cut], column([params[n].min_p for n in cut]))
    numbers = [draw.uniform(row.sequence.seed, row.output_index) for row in rows]
    return draw.pick(probability_NW, torch.tensor(numbers, dtype=torch.float64, device=logits_NW.device))
