"""Functions of logits: draws by a number, penalties, min_p, top_k, top_p, the likeliest tokens."""

import hashlib
import math
import struct
from collections.abc import Sequence as Listing
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from shoestring import kernels
from shoestring.engine.request import Logprob
from shoestring.engine.scheduler import ScheduledSequence
from shoestring.engine.sequence import Failures, Sequence

NUCLEUS_CANDIDATES = 1024
"""top_p looks among this many tokens first; sorting a whole vocabulary costs a hundred times more."""

NO_TOKEN = -1
"""In place of a token id where no token is allowed."""


@dataclass(slots=True)
class SampledTokens:
    """The next tokens of one sequence, or the error that ends it."""

    ids: list[int]
    token_logprobs: list[float] = field(default_factory=list)
    """One per id if the request has logprobs or token_logprobs."""
    logprobs: list[dict[int, Logprob]] = field(default_factory=list)
    """Likewise with the likeliest tokens, if `logprobs` is set."""
    error: str | None = None


class Row(NamedTuple):
    """One row of logits, for the token after the sequence's own and the first `ahead` drafts of `item`."""

    item: ScheduledSequence
    sequence: Sequence
    ahead: int

    @property
    def output_index(self) -> int:
        """The number of the generated token that this row samples, from 0."""
        return self.sequence.num_output_tokens + self.ahead

    @property
    def output_ids(self) -> list[int]:
        """The generated tokens before it, with those drafts."""
        sequence = self.sequence
        return [*sequence.token_ids[sequence.num_prompt_tokens :], *self.item.drafts[: self.ahead]]


def uniform(seed: int, index: int) -> float:
    """The number in [0, 1) that draws token `index` of a request with this seed: a hash of both.

    It is that of kernels.uniform_numbers, without tensors.
    """
    data = struct.pack("<QQ", seed & (2**64 - 1), index)
    return (int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little") >> 11) * 2.0**-53


def sample_plain(logits_NW: Tensor, rows: list[Row]) -> dict[Sequence, SampledTokens]:
    """The tokens of sequences that draw by logits and temperature alone."""
    temperatures, numbers, errors = [], [], Failures()
    for _, sequence, ahead in rows:
        temperature = number = 0.0
        try:
            if not sequence.params.is_greedy:
                number = uniform(sequence.seed, sequence.num_output_tokens + ahead)
                temperature = sequence.params.temperature
        except Exception as error:
            errors.add(sequence, error)
        temperatures.append(temperature)
        numbers.append(number)
    columns = (torch.tensor(x, dtype=torch.float64, device=logits_NW.device) for x in (temperatures, numbers))
    ids_N, logp_N = kernels.sample_tokens(logits_NW, *columns)
    results: dict[Sequence, SampledTokens] = {}
    for n, ((item, sequence, ahead), token_id, logp) in enumerate(
        zip(rows, ids_N.tolist(), logp_N.tolist(), strict=True)
    ):
        if ahead == 0:
            if token_id == NO_TOKEN:
                errors.setdefault(sequence, no_token(float(logits_NW[n].max())))
            result = results[sequence] = SampledTokens([])
        elif result.ids != list(item.drafts[:ahead]):
            continue  # a draft before this row was not the token sampled in its place
        if token_id != NO_TOKEN:
            result.ids.append(token_id)
            if sequence.params.has_logprobs:
                result.token_logprobs.append(logp)
    if errors:
        results |= {sequence: SampledTokens([], error=error) for sequence, error in errors.items()}
    return results


def no_token(largest: float) -> str:
    """The error of a row whose largest logit is not finite."""
    return "no token is allowed here" if largest == -math.inf else "the logits are not finite"


def penalize(logits_NW: Tensor, counts_NW: Tensor, prompt_NW: Tensor, penalties_N3: Tensor) -> Tensor:
    """Repetition (over prompt and output), frequency and presence (over the output) penalties, in that order.

    counts_NW count each token in the output, prompt_NW marks the tokens of the prompt; penalties_N3 are
    repetition, frequency and presence (Keskar et al., arXiv 1909.05858, section 4.1; OpenAI's definition).
    """
    repetition, frequency, presence = penalties_N3[:, :, None].unbind(1)
    occurs_NW = (counts_NW > 0) | prompt_NW
    repeated_NW = torch.where(logits_NW > 0, logits_NW / repetition, logits_NW * repetition)
    return torch.where(occurs_NW, repeated_NW, logits_NW) - frequency * counts_NW - presence * (counts_NW > 0)


def keep_tokens(logits_W: Tensor, token_ids: Listing[int]) -> None:
    """Set the logits of all other tokens to -inf, in place."""
    ids = torch.tensor(token_ids, device=logits_W.device)
    values = logits_W[ids]
    logits_W.fill_(float("-inf"))
    logits_W[ids] = values


def ban_words(logits_W: Tensor, output_ids: Listing[int], words: Listing[Listing[int]]) -> None:
    """Set the last token of each word to -inf, in place, where the output ends with the word's others."""
    for word in words:
        before = len(word) - 1
        if list(output_ids[len(output_ids) - before :]) == list(word[:before]) and before <= len(output_ids):
            logits_W[word[-1]] = float("-inf")


def keep_top_k(logits_NW: Tensor, top_k_N: Tensor) -> Tensor:
    """Set logits below each row's k-th largest to -inf; equals of the k-th stay. k = 0 keeps all."""
    width = logits_NW.shape[1]
    limits_N = torch.where(top_k_N > 0, top_k_N, width).clamp(max=width)
    is_limited = limits_N < width
    if not is_limited.any():
        return logits_NW
    largest_NK = logits_NW.topk(int(limits_N[is_limited].max()), dim=-1).values
    place_N1 = (limits_N - 1).clamp(max=largest_NK.shape[1] - 1)[:, None]
    least_N1 = largest_NK.gather(1, place_N1).masked_fill(~is_limited[:, None], float("-inf"))
    return logits_NW.masked_fill(logits_NW < least_N1, float("-inf"))


def keep_top_p(probability_NW: Tensor, top_p_N: Tensor) -> Tensor:
    """Set all but the fewest likeliest tokens that reach top_p to zero; equals of the last one stay."""
    width = probability_NW.shape[1]
    mass_N = top_p_N * probability_NW.sum(-1)
    for candidates in (min(NUCLEUS_CANDIDATES, width), width):
        largest_NK = probability_NW.topk(candidates, dim=-1).values
        before_NK = largest_NK.cumsum(-1) - largest_NK
        count_N = (before_NK < mass_N[:, None]).sum(-1).clamp(min=1)
        if candidates == width or not ((count_N == candidates) & (top_p_N < 1)).any():
            break
    least_N1 = largest_NK.gather(1, count_N[:, None] - 1)
    least_N1 = least_N1.masked_fill((top_p_N >= 1)[:, None], 0.0)
    return probability_NW.masked_fill(probability_NW < least_N1, 0.0)


def keep_min_p(probability_NW: Tensor, min_p_N: Tensor) -> Tensor:
    """Set probabilities below min_p times the likeliest token's to zero (arXiv 2407.01082)."""
    least_N1 = min_p_N[:, None] * probability_NW.amax(-1, keepdim=True)
    return probability_NW.masked_fill(probability_NW < least_N1, 0.0)


def pick(probability_NW: Tensor, uniform_N: Tensor) -> Tensor:
    """One token per row: the inverse of the cumulated probabilities (float64, of any sum) at `uniform_N`."""
    cumulated_NW = probability_NW.cumsum(-1)
    total_N = cumulated_NW[:, -1]
    below_total = torch.nextafter(total_N, torch.zeros_like(total_N))
    target_N = torch.minimum(uniform_N * total_N, below_total)  # so that some cumulated value is larger
    return torch.searchsorted(cumulated_NW, target_N[:, None], right=True)[:, 0]


def likeliest(
    logp_MW: Tensor, ids_M: Listing[int], counts: Listing[int]
) -> list[dict[int, tuple[float, int]]]:
    """Logprob and rank of each row's own token, which comes first, and of its `count` likeliest (-1: all)."""
    width = logp_MW.shape[1]
    counts = [width if count < 0 else min(count, width) for count in counts]
    own_M1 = logp_MW.gather(1, torch.tensor(ids_M, device=logp_MW.device)[:, None])
    ranks = (1 + (logp_MW > own_M1).sum(-1)).tolist()
    top = logp_MW.topk(max(counts), dim=-1)
    values, top_ids, own = top.values.tolist(), top.indices.tolist(), own_M1[:, 0].tolist()
    entries = []
    for m, (token_id, count) in enumerate(zip(ids_M, counts, strict=True)):
        entry = {token_id: (own[m], ranks[m])}
        for rank in range(count):
            entry.setdefault(top_ids[m][rank], (values[m][rank], rank + 1))
        entries.append(entry)
    return entries
