"""Reverse KL between student and teacher over the whole vocabulary, exact in bounded memory, and a step."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from shoestring.model.transformer import Transformer
from shoestring.train.optim import Optimizers
from shoestring.train.step import clip_and_step

Logits = Callable[[Tensor], Tensor]
"""A function of hidden states (N, D) that returns logits (N, W), as `Transformer.logits`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """An answer of the student."""

    ids: tuple[int, ...]
    """Prompt and answer."""
    num_answer_tokens: int
    """Length of the answer, which comes last."""
    is_truncated: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateStats:
    """Figures of a step; `kl` in nats per token, before the update."""

    kl: float
    tokens: int
    grad_norm: float


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateSettings:
    """Settings of a step."""

    vocab_size: int
    """Number of the tokenizer's ids; logits beyond them are padding."""
    micro_tokens: int
    """Tokens in one forward pass, padding included."""
    rows: int
    """Tokens whose logits are in memory at once."""
    max_grad_norm: float
    lr_share: float


def reverse_kl(
    hidden_ND: Tensor,
    logits: Logits,
    teacher_hidden_ND: Tensor,
    teacher_logits: Logits,
    *,
    vocab_size: int,
    rows: int,
) -> Tensor:
    """KL(student || teacher) at each of N tokens, in nats: (N,), with gradient for the student.

    The sum over the vocabulary of p (log p - log q) (GKD with a reverse KL, arXiv 2306.13649, section 3.1),
    exact and without sampling noise. Only the first `vocab_size` logits count: models of one tokenizer pad
    theirs differently. Logits of `rows` tokens at a time are in memory, also in the backward pass, where they
    are computed again; this changes only memory.
    """
    parts = [
        checkpoint(_part, part, logits, teacher_part, teacher_logits, vocab_size, use_reentrant=False)
        for part, teacher_part in zip(hidden_ND.split(rows), teacher_hidden_ND.split(rows), strict=True)
    ]
    return torch.cat(parts)


def _part(
    hidden_ND: Tensor, logits: Logits, teacher_hidden_ND: Tensor, teacher_logits: Logits, vocab_size: int
) -> Tensor:
    logp_NW = logits(hidden_ND)[:, :vocab_size].log_softmax(-1)
    with torch.no_grad():
        logq_NW = teacher_logits(teacher_hidden_ND)[:, :vocab_size].log_softmax(-1)
    return (logp_NW.exp() * (logp_NW - logq_NW)).sum(-1)


def update(
    student: Transformer,
    teacher: Transformer,
    optimizers: Optimizers,
    samples: Sequence[Sample],
    settings: UpdateSettings,
) -> UpdateStats:
    """One step down the mean reverse KL over all answer tokens; `micro_tokens` and `rows` change only memory.

    Raises NonFiniteError, with weights and moments untouched, if the KL or its gradient is not finite.
    """
    optimizers.zero_grad()
    tokens = sum(sample.num_answer_tokens for sample in samples)
    total = torch.zeros((), dtype=torch.float64)
    for part in micro_batches(samples, settings.micro_tokens):
        ids_BT, is_answer_BT = _padded(part, student.device)
        hidden_ND = student.features(ids_BT).hidden_BTD[is_answer_BT]
        with torch.no_grad():
            teacher_hidden_ND = teacher.features(ids_BT).hidden_BTD[is_answer_BT]
        kl_N = reverse_kl(
            hidden_ND,
            student.logits,
            teacher_hidden_ND,
            teacher.logits,
            vocab_size=settings.vocab_size,
            rows=settings.rows,
        )
        (kl_N.sum() / tokens).backward()
        total += kl_N.detach().double().sum().cpu()
    kl = float(total / tokens)
    grad_norm = clip_and_step(
        student, optimizers, kl, max_grad_norm=settings.max_grad_norm, lr_share=settings.lr_share
    )
    return UpdateStats(kl=kl, tokens=tokens, grad_norm=grad_norm)


def micro_batches(samples: Sequence[Sample], micro_tokens: int) -> Iterator[list[Sample]]:
    """Samples of similar length together, at most `micro_tokens` with padding; one sample may be longer."""
    part: list[Sample] = []
    for sample in sorted(samples, key=lambda sample: (len(sample.ids), sample.ids)):
        if part and len(sample.ids) * (len(part) + 1) > micro_tokens:
            yield part
            part = []
        part.append(sample)
    if part:
        yield part


def _padded(samples: Sequence[Sample], device: torch.device) -> tuple[Tensor, Tensor]:
    """Ids padded on the right, and a mask of the places whose next token is of an answer."""
    width = max(len(sample.ids) for sample in samples)
    ids_BT = torch.zeros(len(samples), width, dtype=torch.int64)
    is_answer_BT = torch.zeros(len(samples), width, dtype=torch.bool)
    for row, sample in enumerate(samples):
        ids_BT[row, : len(sample.ids)] = torch.tensor(sample.ids)
        is_answer_BT[row, len(sample.ids) - sample.num_answer_tokens - 1 : len(sample.ids) - 1] = True
    return ids_BT[:, :-1].to(device), is_answer_BT[:, :-1].to(device)
