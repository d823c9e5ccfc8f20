"""Exact log-probabilities of continuations after contexts, in padded batches."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import torch

from shoestring.errors import ConfigError
from shoestring.model.transformer import Transformer

LOGITS_AT_ONCE = 2048
"""Most rows whose logits over the whole vocabulary are in memory at one time."""


class LogLikelihood(NamedTuple):
    """A continuation's log-probability in nats, and whether greedy decoding would produce it."""

    logprob: float
    is_greedy: bool


@torch.inference_mode()
def score_continuations(
    model: Transformer,
    pairs: Sequence[tuple[Sequence[int], Sequence[int]]],
    *,
    max_length: int,
    batch_tokens: int = 8192,
) -> list[LogLikelihood]:
    """Score each (context, continuation), in their order; a context has at least one token.

    A row longer than `max_length` + 1 tokens loses its beginning. Rows of similar length share a batch of at
    most `batch_tokens`, padding included; it is on the right, so causal attention never sees it.
    Raises ConfigError for a continuation that does not fit.
    """
    rows = []
    for context, continuation in pairs:
        assert context, "a continuation is predicted from at least one token"
        if len(continuation) > max_length:
            raise ConfigError(
                f"a continuation of {len(continuation)} tokens is longer than the context of {max_length}"
            )
        rows.append((*context, *continuation)[-(max_length + 1) :])
    results = {
        number: LogLikelihood(0.0, True) for number, (_, continuation) in enumerate(pairs) if not continuation
    }
    lengths = {number: len(row) - 1 for number, row in enumerate(rows) if number not in results}
    for batch in _batches(lengths, batch_tokens):
        width = lengths[batch[0]]
        inputs = [[*rows[number][:-1], *[0] * (width - lengths[number])] for number in batch]
        hidden_BTD = model.features(torch.tensor(inputs, device=model.device)).hidden_BTD
        counts = [len(pairs[number][1]) for number in batch]
        continuation_ND = torch.cat(
            [
                hidden_BTD[row, lengths[number] - count : lengths[number]]
                for row, (number, count) in enumerate(zip(batch, counts, strict=True))
            ]
        )
        targets_N = torch.tensor([i for number in batch for i in pairs[number][1]], device=model.device)
        logp_N, best_N = _score_rows(model, continuation_ND, targets_N)
        parts = zip(batch, logp_N.split(counts), best_N.split(counts), strict=True)
        results |= {
            number: LogLikelihood(float(logp.sum()), bool(best.all())) for number, logp, best in parts
        }
    return [results[number] for number in range(len(rows))]


def _score_rows(
    model: Transformer, hidden_ND: torch.Tensor, targets_N: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Each target's log-probability (float64), and whether no other token is more likely."""
    logps, bests = [torch.empty(0, dtype=torch.float64)], [torch.empty(0, dtype=torch.bool)]
    chunks = zip(hidden_ND.split(LOGITS_AT_ONCE), targets_N.split(LOGITS_AT_ONCE), strict=True)
    for hidden, targets in chunks:
        logits_NW = model.logits(hidden[None])[0]
        logp_NW = logits_NW.log_softmax(dim=-1)
        logps.append(logp_NW.gather(1, targets[:, None])[:, 0].double().cpu())
        bests.append((logits_NW.argmax(dim=-1) == targets).cpu())
    return torch.cat(logps), torch.cat(bests)


def _batches(lengths: Mapping[int, int], batch_tokens: int) -> Iterator[list[int]]:
    """Batches of row numbers, longest rows first: the first row sets the width of its batch."""
    batch: list[int] = []
    for number in sorted(lengths, key=lambda number: -lengths[number]):
        if batch and (len(batch) + 1) * lengths[batch[0]] > batch_tokens:
            yield batch
            batch = []
        batch.append(number)
    if batch:
        yield batch
