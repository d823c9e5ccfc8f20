"""The sampler: logits of a batch -> each sequence's accepted tokens, drafts verified, with logprobs."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from shoestring.engine import draw
from shoestring.engine.draw import NO_TOKEN, Row, SampledTokens
from shoestring.engine.request import Logprob
from shoestring.engine.scheduler import Batch
from shoestring.engine.sequence import Failures, Sequence
from shoestring.errors import ShoestringError

if TYPE_CHECKING:
    from shoestring.engine.constrain.grammars import Matcher

PROMPT_ROWS = 64
"""Rows of a prompt whose logits over the whole vocabulary are in memory at one time."""


class Choice(NamedTuple):
    """Parameters by which the token of one row is drawn, and its `number` from 0 to 1."""

    temperature: float
    top_k: int
    top_p: float
    min_p: float
    number: float

    @classmethod
    def of(cls, row: Row) -> "Choice":
        """The choice of a row by its request's parameters and seed."""
        params, number = row.sequence.params, draw.uniform(row.sequence.seed, row.output_index)
        return cls(params.temperature, params.top_k, params.top_p, params.min_p, number)


@dataclass(slots=True)
class _History:
    """The count of each token in a sequence's output, and the tokens of its prompt; updated when needed."""

    counts_W: Tensor
    prompt_W: Tensor
    num_counted: int = 0


class Sampler:
    """Samples token i of a request by a number that depends on its seed and i only: neither other rows nor
    drafts nor a preemption changes it.

    A draft is accepted if it equals the token sampled in its place; for drafts without probabilities this
    accepts as many as rejection sampling (Leviathan et al., arXiv 2211.17192).
    """

    def __init__(
        self, *, eos_ids: frozenset[int] = frozenset(), token_text: Callable[[int], str] | None = None
    ) -> None:
        self.eos_ids, self._token_text = eos_ids, token_text
        self.matchers: WeakKeyDictionary[Sequence, Matcher] = WeakKeyDictionary()
        """The grammar state of each constrained sequence."""
        self._histories: WeakKeyDictionary[Sequence, _History] = WeakKeyDictionary()

    def sample(self, logits_NW: Tensor, batch: Batch) -> dict[Sequence, SampledTokens]:
        """The tokens of every sequence with sampled rows, at least one each unless there is an `error`.

        `logits_NW` are of the batch's sampled rows in order; they are overwritten.
        """
        rows = [Row(item, item.sequence, ahead) for item in batch.items for ahead in range(item.num_sampled)]
        matchers = self.matchers if len(self.matchers) else ()
        is_plain = [row.sequence.is_plain and row.sequence not in matchers for row in rows]
        results: dict[Sequence, SampledTokens] = {}
        for kind, sample in ((True, draw.sample_plain), (False, self._sample)):
            places = [n for n, plain in enumerate(is_plain) if plain == kind]
            if places:
                logits_MW = logits_NW if len(places) == len(rows) else logits_NW[places]
                results |= sample(logits_MW, [rows[n] for n in places])
        return results

    def _sample(self, logits_NW: Tensor, rows: list[Row]) -> dict[Sequence, SampledTokens]:
        """The tokens of sequences of any kind."""
        raw = self._raw_logprobs(logits_NW, rows)
        errors = Failures()
        self._constrain(logits_NW, rows, errors)
        best_N, ids_N = logits_NW.max(-1)  # the lowest id of equals
        choices = _choices(rows, errors)
        if choices:
            random_rows = list(choices)
            ids_N[random_rows] = _draw(logits_NW[random_rows], list(choices.values()))
        ids = ids_N.tolist()
        for n, value in enumerate(best_N.tolist()):
            if math.isfinite(value):
                continue
            ids[n] = NO_TOKEN
            if rows[n].ahead == 0:
                errors.setdefault(rows[n].sequence, draw.no_token(value))
        return self._accept(rows, ids, errors, raw)

    def _accept(
        self,
        rows: list[Row],
        ids: list[int],
        errors: Failures,
        raw: tuple[list[int], Tensor] | None,
    ) -> dict[Sequence, SampledTokens]:
        """Each sequence's tokens up to the first that differs from its draft, or its error."""
        results: dict[Sequence, SampledTokens] = {}
        accepted_rows: list[int] = []
        for n, (item, sequence, ahead) in enumerate(rows):
            if ahead == 0:
                results[sequence] = SampledTokens([])
            result = results[sequence]
            # so far every draft before this row was the token sampled in its place
            if sequence not in errors and ids[n] != NO_TOKEN and result.ids == list(item.drafts[:ahead]):
                result.ids.append(ids[n])
                accepted_rows.append(n)
        self._consume(results, errors)
        if raw is not None:
            self._report(raw, rows, accepted_rows, ids, results, errors)
        return results | {sequence: SampledTokens([], error=error) for sequence, error in errors.items()}

    def _constrain(self, logits_NW: Tensor, rows: list[Row], errors: Failures) -> None:
        """Apply allowed and bad tokens, bias, min_tokens, grammar and penalties to the rows that have any."""
        for n, row in enumerate(rows):
            try:
                self._bias(logits_NW[n], row)
            except Exception as error:
                errors.add(row.sequence, error)
        if self.matchers:
            self._mask(logits_NW, rows, errors)
        self._penalize(logits_NW, rows, errors)

    def _bias(self, logits_W: Tensor, row: Row) -> None:
        """Apply a row's allowed_token_ids, bad_words, logit_bias and min_tokens."""
        params = row.sequence.params
        if params.allowed_token_ids is not None:
            draw.keep_tokens(logits_W, params.allowed_token_ids)
        if row.sequence.bad_words:
            draw.ban_words(logits_W, row.output_ids, row.sequence.bad_words)
        if params.logit_bias:
            ids = torch.tensor(list(params.logit_bias), device=logits_W.device)
            logits_W[ids] += torch.tensor(list(params.logit_bias.values()), device=logits_W.device)
        if row.output_index < params.min_tokens:
            stops = {*params.stop_token_ids, *(() if params.ignore_eos else self.eos_ids)}
            logits_W[list(stops)] = -math.inf

    def _mask(self, logits_NW: Tensor, rows: list[Row], errors: Failures) -> None:
        """Apply each constrained row's grammar mask, as if the drafts before it had been accepted."""
        from shoestring.engine.constrain.grammars import apply_mask

        first = {row.item: n for n, row in enumerate(rows) if row.ahead == 0}
        for item, n in first.items():
            matcher = self.matchers.get(item.sequence)
            if matcher is None:
                continue
            try:
                num_consumed = 0
                for ahead in range(item.num_sampled):
                    apply_mask(logits_NW[n + ahead], matcher.mask())
                    # Behind a draft that the grammar refuses no row will be used.
                    if ahead == len(item.drafts) or not matcher.consume(item.drafts[ahead]):
                        break
                    num_consumed += 1
                matcher.rollback(num_consumed)
            except Exception as error:
                errors.add(item.sequence, error)

    def _consume(self, results: dict[Sequence, SampledTokens], errors: Failures) -> None:
        """Move the grammars past the accepted tokens, and drop tokens accepted behind a text's end."""
        for sequence, matcher in self.matchers.items():
            result = results.get(sequence)
            if result is None or sequence in errors:
                continue
            try:
                for count, token_id in enumerate(result.ids, 1):
                    if not matcher.consume(token_id):
                        raise ShoestringError(f"the grammar refused token {token_id}, which its mask allowed")
                    if count < len(result.ids) and matcher.is_stopped:
                        del result.ids[count:]
                        break
            except Exception as error:
                errors.add(sequence, error)

    def _penalize(self, logits_NW: Tensor, rows: list[Row], errors: Failures) -> None:
        penalty_rows, counts, prompts, penalties = [], [], [], []
        for n, row in enumerate(rows):
            params = row.sequence.params
            if not params.has_penalties:
                continue
            try:
                history = self._history(row.sequence, logits_NW)
            except Exception as error:
                errors.add(row.sequence, error)
                continue
            counts_W = history.counts_W
            if row.ahead:
                drafts = torch.tensor(row.item.drafts[: row.ahead], device=counts_W.device)
                counts_W = counts_W + torch.bincount(drafts, minlength=len(counts_W))
            penalty_rows.append(n)
            counts.append(counts_W)
            prompts.append(history.prompt_W)
            penalties.append([params.repetition_penalty, params.frequency_penalty, params.presence_penalty])
        if not penalty_rows:
            return
        penalties_N3 = torch.tensor(penalties, device=logits_NW.device)
        arguments = (torch.stack(counts), torch.stack(prompts), penalties_N3)
        logits_NW[penalty_rows] = draw.penalize(logits_NW[penalty_rows], *arguments)

    def _history(self, sequence: Sequence, logits_NW: Tensor) -> _History:
        width, device = logits_NW.shape[1], logits_NW.device
        history = self._histories.get(sequence)
        if history is None:
            prompt_W = torch.zeros(width, dtype=torch.bool, device=device)
            prompt_W[list(sequence.request.prompt_token_ids)] = True
            history = _History(torch.zeros(width, device=device), prompt_W)
            self._histories[sequence] = history
        new = sequence.token_ids[sequence.num_prompt_tokens + history.num_counted :]
        if new:
            history.counts_W += torch.bincount(torch.tensor(new, device=device), minlength=width)
            history.num_counted += len(new)
        return history

    def _raw_logprobs(self, logits_NW: Tensor, rows: list[Row]) -> tuple[list[int], Tensor] | None:
        """The rows of requests with logprobs, and their logprobs before anything is changed."""
        places = [n for n, row in enumerate(rows) if row.sequence.params.has_logprobs]
        if not places:
            return None
        return places, (logits_NW if len(places) == len(rows) else logits_NW[places]).log_softmax(-1)

    def _report(
        self,
        raw: tuple[list[int], Tensor],
        rows: list[Row],
        accepted_rows: list[int],
        ids: list[int],
        results: dict[Sequence, SampledTokens],
        errors: Failures,
    ) -> None:
        """Add the logprobs of the accepted tokens, and of the likeliest ones in their places."""
        raw_rows, logp_MW = raw
        accepted_set = set(accepted_rows)
        places = [place for place, n in enumerate(raw_rows) if n in accepted_set]
        if not places:
            return
        logprob_rows = [raw_rows[place] for place in places]
        logp_MW = logp_MW if len(places) == len(logp_MW) else logp_MW[places]
        token_ids = [ids[n] for n in logprob_rows]
        token_logp_M1 = logp_MW.gather(1, torch.tensor(token_ids, device=logp_MW.device)[:, None])
        for n, logprob in zip(logprob_rows, token_logp_M1[:, 0].tolist(), strict=True):
            results[rows[n].sequence].token_logprobs.append(logprob)
        entries = [m for m, n in enumerate(logprob_rows) if rows[n].sequence.params.logprobs is not None]
        if not entries:
            return
        sequences = [rows[logprob_rows[m]].sequence for m in entries]
        counts = [sequence.params.logprobs or 0 for sequence in sequences]
        tokens = draw.likeliest(logp_MW[entries], [token_ids[m] for m in entries], counts)
        for sequence, entry in zip(sequences, tokens, strict=True):
            try:
                results[sequence].logprobs.append(self._logprobs(entry))
            except Exception as error:
                errors.add(sequence, error)

    def prompt_logprobs(
        self, hidden_ND: Tensor, ids: list[int], count: int, logits: Callable[[Tensor], Tensor]
    ) -> list[dict[int, Logprob]]:
        """Logprobs of the prompt's tokens `ids` and the likeliest in their places, from the rows before them.

        `logits` turns (N, D) hidden states into (N, W) logits.
        """
        entries: list[dict[int, Logprob]] = []
        for start in range(0, len(ids), PROMPT_ROWS):
            part = ids[start : start + PROMPT_ROWS]
            logp_NW = logits(hidden_ND[start : start + PROMPT_ROWS]).log_softmax(-1)
            tokens = draw.likeliest(logp_NW, part, [count] * len(part))
            entries += [self._logprobs(entry) for entry in tokens]
        return entries

    def filter_drafts(self, sequence: Sequence, drafts: list[int]) -> list[int]:
        """The drafts up to the first that the sequence's grammar refuses."""
        matcher = self.matchers.get(sequence)
        if matcher is None:
            return drafts
        count = 0
        while count < len(drafts) and matcher.consume(drafts[count]):
            count += 1
        matcher.rollback(count)
        return drafts[:count]

    def _logprobs(self, entry: dict[int, tuple[float, int]]) -> dict[int, Logprob]:
        """Logprobs, from their values and ranks, with the tokens' texts."""
        text = self._token_text
        return {
            token_id: Logprob(logprob=logprob, rank=rank, decoded_token=text(token_id) if text else None)
            for token_id, (logprob, rank) in entry.items()
        }


def _choices(rows: list[Row], errors: Failures) -> dict[int, Choice]:
    """The choice of each row that is not greedy."""
    choices = {}
    for n, row in enumerate(rows):
        try:
            if not row.sequence.params.is_greedy:
                choices[n] = Choice.of(row)
        except Exception as error:
            errors.add(row.sequence, error)
    return choices


def _draw(logits_NW: Tensor, choices: list[Choice]) -> Tensor:
    """One token for each row by its own number; only rows with top_k, top_p or min_p are sorted."""

    def column(values: list[float] | list[int], dtype: torch.dtype = torch.float64) -> Tensor:
        return torch.tensor(values, dtype=dtype, device=logits_NW.device)

    logits_NW = logits_NW / column([choice.temperature for choice in choices])[:, None]
    some = [n for n, choice in enumerate(choices) if choice.top_k > 0]
    if some:
        limits = column([choices[n].top_k for n in some], torch.int64)
        logits_NW[some] = draw.keep_top_k(logits_NW[some], limits)
    probability_NW = logits_NW.softmax(-1)
    some = [n for n, choice in enumerate(choices) if choice.min_p > 0]
    if some:
        probability_NW[some] = draw.keep_min_p(probability_NW[some], column([choices[n].min_p for n in some]))
    some = [n for n, choice in enumerate(choices) if choice.top_p < 1]
    if some:
        probability_NW[some] = draw.keep_top_p(probability_NW[some], column([choices[n].top_p for n in some]))
    return draw.pick(probability_NW, column([choice.number for choice in choices]))
