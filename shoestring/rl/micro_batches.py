"""Micro-batches of answers: one row of tokens for a forward pass, in which answers share their prompt."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from shoestring import kernels
from shoestring.data.packing import IGNORE_INDEX
from shoestring.model.transformer import Transformer
from shoestring.rl.losses import PolicyLossConfig, loss_mask
from shoestring.rl.recipe import GRPOConfig
from shoestring.rl.rollout import Answer
from shoestring.rl.vocabulary import Vocabulary

Family = list[Answer]
"""Answers that go on from the same prompt, whose tokens go through the model once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MicroBatch:
    """Answers that go through the model together: N tokens in one row, and B x T places for the loss."""

    ids_N: Tensor
    """Of each family its prompt, then its answers without their last token."""
    positions_N: Tensor
    segments_S2: Tensor
    """Prompts and answers, as kernels.causal_attention takes them."""
    sources_BT: Tensor
    """Of each token of an answer, the place among N of the token before it."""
    targets_BT: Tensor
    """The answers' tokens; IGNORE_INDEX behind the end, and for those of a tool."""
    mask_BT: Tensor
    """The answers' tokens that are in the loss."""
    advantages_B: Tensor
    engine_logp_BT: Tensor
    old_logp_BT: Tensor | None = None
    """The trainer's log-probabilities under the policy that sampled; None: the policy has not changed."""
    ref_logp_BT: Tensor | None = None
    experts: Mapping[int, Tensor] | None = None
    """By MoE layer, the engine's routed experts of each token when the answers were sampled."""

    @property
    def num_tokens(self) -> int:
        """Tokens that go through the model."""
        return len(self.ids_N)


def micro_batches(answers: Sequence[Answer], config: GRPOConfig, model: Transformer) -> Iterator[MicroBatch]:
    """Answers to the same prompt together; those without any gradient left out."""
    loss, layers = config.loss, model.config.moe_layers
    learned_answers = [a for a in answers if not is_masked(a, loss) and (a.advantage or loss.beta)]
    for part in _parts(families_of(learned_answers), config.micro_tokens):
        yield _joined(part, loss, layers, model.device)


def _parts(families: Sequence[Family], most: int) -> Iterator[list[Family]]:
    """The families in parts of at most `most` tokens, or of one answer; a family may be cut."""
    part: list[Family] = []
    size = 0
    for family in families:
        prompt = len(family[0].prompt_ids)
        for number, answer in enumerate(family):
            own, is_new = len(answer.token_ids) - 1, number == 0
            if part and size + own + (prompt if is_new else 0) > most:
                yield part
                part, size, is_new = [], 0, True
            if is_new:
                part.append([])
                size += prompt
            part[-1].append(answer)
            size += own
    if part:
        yield part


def families_of(answers: Iterable[Answer]) -> list[Family]:
    """The answers by prompt; one whose prompt had other experts in the engine keeps those, and is apart."""
    families: dict[tuple[tuple[int, ...], bytes], Family] = {}
    for answer in answers:
        experts = b""
        if answer.experts is not None:
            experts = answer.experts[: len(answer.prompt_ids)].numpy().tobytes()
        families.setdefault((answer.prompt_ids, experts), []).append(answer)
    return list(families.values())


def answer_logprobs(
    model: Transformer, batch: MicroBatch, temperature: float, vocabulary: Vocabulary
) -> Tensor:
    """Log-probabilities (B, T) of the answers' tokens at this temperature, 0 elsewhere."""
    features = model.features(
        batch.ids_N[None], None, batch.positions_N[None], experts=batch.experts, segments_S2=batch.segments_S2
    )
    at_M = (batch.targets_BT != IGNORE_INDEX).flatten().nonzero()[:, 0]
    hidden_MD = features.hidden_BTD[0].index_select(0, batch.sources_BT.flatten()[at_M])
    if temperature != 1.0:
        hidden_MD = hidden_MD / temperature
    targets_M = vocabulary.places(batch.targets_BT.flatten()[at_M])
    logp_M = kernels.token_logprobs(hidden_MD, vocabulary.rows(model.head_weight_WD), targets_M)
    logp = torch.zeros(batch.targets_BT.numel(), device=logp_M.device).index_copy(0, at_M, logp_M)
    return logp.view_as(batch.targets_BT)


def is_masked(answer: Answer, loss: PolicyLossConfig) -> bool:
    """Return whether an answer is left out of the loss because it was cut at the length limit."""
    return loss.mask_truncated_completions and answer.is_truncated


def _joined(
    families: Sequence[Family], loss: PolicyLossConfig, layers: Sequence[int], device: torch.device
) -> MicroBatch:
    """The micro-batch of these families."""
    answers = [answer for family in families for answer in family]
    width = max(len(answer.token_ids) for answer in answers)
    sources = torch.zeros(len(answers), width, dtype=torch.int64)
    targets = torch.full((len(answers), width), IGNORE_INDEX)
    engine_logp = torch.zeros(len(answers), width)
    ids: list[int] = []
    positions: list[int] = []
    segments: list[tuple[int, int]] = []
    row = 0
    for family in families:
        prompt_ids = family[0].prompt_ids
        last = len(ids) + len(prompt_ids) - 1
        ids += prompt_ids
        positions += range(len(prompt_ids))
        segments.append((len(prompt_ids), 0))
        for answer in family:
            count = len(answer.token_ids)
            sources[row, :count] = torch.arange(len(ids) - 1, len(ids) - 1 + count)
            sources[row, 0] = last
            targets[row, :count] = torch.tensor(answer.token_ids)
            if answer.is_own:  # results of tools are read and not learned
                targets[row, :count][~torch.tensor(answer.is_own)] = IGNORE_INDEX
            engine_logp[row, :count] = torch.tensor(answer.logprobs)
            ids += answer.token_ids[:-1]
            positions += range(len(prompt_ids), answer.num_inputs)
            segments.append((count - 1, 1))
            row += 1
    truncated_B = torch.tensor([answer.is_truncated for answer in answers])
    mask = loss_mask(
        targets != IGNORE_INDEX, valid_B=torch.ones_like(truncated_B), truncated_B=truncated_B, config=loss
    )
    return MicroBatch(
        ids_N=torch.tensor(ids).to(device),
        positions_N=torch.tensor(positions).to(device),
        segments_S2=torch.tensor(segments),
        sources_BT=sources.to(device),
        targets_BT=targets.to(device),
        mask_BT=mask.to(device),
        advantages_B=torch.tensor([answer.advantage for answer in answers]).to(device),
        engine_logp_BT=engine_logp.to(device),
        experts=_experts(families, layers, device),
    )


def _experts(
    families: Sequence[Family], layers: Sequence[int], device: torch.device
) -> dict[int, Tensor] | None:
    """By MoE layer the experts (N, K) that the engine chose; None if it did not record them."""
    parts: list[Tensor] = []
    for family in families:
        for number, answer in enumerate(family):
            if answer.experts is None:
                return None
            parts.append(answer.experts[len(answer.prompt_ids) if number else 0 :])
    experts_NLK = torch.cat(parts).long().to(device)
    return {layer: experts_NLK[:, place].contiguous() for place, layer in enumerate(layers)}
