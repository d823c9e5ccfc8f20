"""Random batches of preferences under a bigram model, on which losses and their gradients are compared."""

from dataclasses import dataclass

import torch
from torch import Tensor

from shoestring.preferences.losses import Answers

BATCHES = 20
VOCABULARY, PAIRS, LONGEST = 13, 5, 9
PROMPT = 1
"""Tokens of a prompt: TRL's ORPO takes the cross-entropy of prompts too, all but their first token."""


@dataclass(frozen=True)
class Batch:
    """Pairs (or, first chosen and then rejected, single answers) and a model of three numbers per bigram."""

    policy_WW: Tensor
    """Logits of the next token after each token, with gradient, float64."""
    reference_WW: Tensor
    chosen_BT: Tensor
    """A prompt, an answer of 1 to LONGEST tokens, and -1 behind it."""
    rejected_BT: Tensor

    def answers(self, ids_BT: Tensor) -> Answers:
        """The log-probabilities of rows' answers."""
        mask_BT = ids_BT[:, PROMPT:] >= 0
        return Answers(
            sequence_logp(self.policy_WW, ids_BT),
            mask_BT.sum(1).double(),
            sequence_logp(self.reference_WW, ids_BT),
        )


def sequence_logp(logits_WW: Tensor, ids_BT: Tensor) -> Tensor:
    """Sums of the answers' log-probabilities under a bigram model (B,)."""
    mask_BT = ids_BT[:, PROMPT:] >= 0
    before_BT, token_BT = ids_BT[:, :-1].clamp(min=0), ids_BT[:, 1:].clamp(min=0)
    logp_BT = logits_WW.log_softmax(1)[before_BT, token_BT]
    return (logp_BT * mask_BT).sum(1)


def random_batch(seed: int) -> Batch:
    """Pairs of random answers; the reference is near the model, as in training."""
    generator = torch.Generator().manual_seed(seed)
    policy = torch.randn(VOCABULARY, VOCABULARY, generator=generator, dtype=torch.float64)
    reference = policy + 0.3 * torch.randn(policy.shape, generator=generator, dtype=torch.float64)

    def rows() -> Tensor:
        ids = torch.randint(0, VOCABULARY, (PAIRS, PROMPT + LONGEST), generator=generator)
        lengths = torch.randint(1, LONGEST + 1, (PAIRS, 1), generator=generator)
        return ids.masked_fill(torch.arange(PROMPT + LONGEST) >= PROMPT + lengths, -1)

    return Batch(policy.requires_grad_(), reference, rows(), rows())


def mismatched(ids_BT: Tensor) -> Tensor:
    """The prompt of each row with the answer of the one before it, the first with the last's (KTO)."""
    return torch.cat((ids_BT[:, :PROMPT], ids_BT.roll(1, 0)[:, PROMPT:]), 1)
