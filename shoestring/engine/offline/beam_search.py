"""Beam search: the likeliest continuations of a prompt, extended by one token in each round."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from shoestring.outputs import BeamSearchSequence, Logprob, RequestOutput
from shoestring.sampling_params import BeamSearchParams, SamplingParams
from shoestring.tokenizer.prompts import Prompt

Complete = Callable[[list[Prompt], SamplingParams], list[RequestOutput]]


class Likeliest(Protocol):
    """The likeliest next tokens of each of some prompts, with their logprobs; None where none fits."""

    def __call__(self, prompts: Sequence[Sequence[int]], count: int) -> list[dict[int, Logprob] | None]: ...


@dataclass
class _Search:
    """The search for one prompt."""

    prompt: list[int]
    beams: list[BeamSearchSequence]
    results: list[BeamSearchSequence] = field(default_factory=list)


def beam_search(
    prompts: Sequence[Sequence[int]],
    params: BeamSearchParams,
    likeliest: Likeliest,
    end_ids: frozenset[int] = frozenset(),
) -> list[list[BeamSearchSequence]]:
    """The `beam_width` best sequences for each prompt, best first.

    A round extends every beam by its 2 `beam_width` likeliest tokens; an end token ends a sequence, and the
    best others are the next beams. The beams that are left after `max_tokens` rounds end with "length".
    """
    searches = [
        _Search(list(prompt), [BeamSearchSequence(tokens=list(prompt), logprobs=[])]) for prompt in prompts
    ]
    score = _score(params, end_ids)
    for _ in range(params.max_tokens):
        pairs = [(search, beam) for search in searches for beam in search.beams]
        if not pairs:
            break
        rows = likeliest([beam.tokens for _, beam in pairs], 2 * params.beam_width)
        for search in searches:
            search.beams = []
        for (search, beam), row in zip(pairs, rows, strict=True):
            if row is None:
                search.results.append(_ended(beam, "length"))
            else:
                _extend(search, beam, row, params, end_ids)
        for search in searches:
            search.beams = sorted(search.beams, key=score, reverse=True)[: params.beam_width]
    results = []
    for search in searches:
        sequences = search.results + [_ended(beam, "length") for beam in search.beams]
        results.append(sorted(sequences, key=score, reverse=True)[: params.beam_width])
    return results


def _extend(
    search: _Search,
    beam: BeamSearchSequence,
    row: dict[int, Logprob],
    params: BeamSearchParams,
    end_ids: frozenset[int],
) -> None:
    """Add a beam's continuations by one token to the search's beams, or to its results."""
    for token_id, entry in row.items():
        is_end = token_id in end_ids and not params.ignore_eos
        tokens = beam.tokens if is_end and not params.include_stop_str_in_output else [*beam.tokens, token_id]
        candidate = BeamSearchSequence(
            tokens=list(tokens),
            logprobs=[*beam.logprobs, row],
            cum_logprob=beam.cum_logprob + entry.logprob,
            finish_reason="stop" if is_end else None,
            stop_reason=token_id if is_end else None,
        )
        (search.results if is_end else search.beams).append(candidate)


def _ended(beam: BeamSearchSequence, reason: str) -> BeamSearchSequence:
    beam.finish_reason = reason
    return beam


def _score(params: BeamSearchParams, end_ids: frozenset[int]) -> Callable[[BeamSearchSequence], float]:
    """A sequence's log-probability over its length, without an end token, to the power length_penalty."""

    def score(beam: BeamSearchSequence) -> float:
        length = len(beam.tokens) - (beam.tokens[-1] in end_ids)
        return float(beam.cum_logprob / max(length, 1) ** params.length_penalty)

    return score


def likeliest_tokens(
    complete: Callable[[list[Prompt], SamplingParams], list[RequestOutput]],
    max_model_len: int,
    prompts: Sequence[Sequence[int]],
    count: int,
) -> list[dict[int, Logprob] | None]:
    """The likeliest next tokens of each prompt that has room for one."""
    params = SamplingParams(max_tokens=1, temperature=0, logprobs=count, detokenize=False)
    fits = [len(prompt) < max_model_len for prompt in prompts]
    rows = [Prompt(token_ids=tuple(ids)) for ids, is_short in zip(prompts, fits, strict=True) if is_short]
    outputs = iter(complete(rows, params))
    return [dict((next(outputs).outputs[0].logprobs or [{}])[0]) if is_short else None for is_short in fits]
