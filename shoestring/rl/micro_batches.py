"""Micro-batches of answers: padded rows for one forward pass, and the log-probabilities of their tokens."""

from collections.abc import Iterator, Mapping, Sequence
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


@dataclass(frozen=True, slots=True, kw_only=True)
class MicroBatch:
    """Answers that go through the model together, padded on the right: B rows, T tokens."""

    inputs_BT: Tensor
    targets_BT: Tensor
    """The token after each input if it is of the answer, else IGNORE_INDEX."""
    mask_BT: Tensor
    """The answers' tokens that are in the loss."""
    advantages_B: Tensor
    engine_logp_BT: Tensor
    num_tokens: int
    """Without padding."""
    old_logp_BT: Tensor | None = None
    """The trainer's log-probabilities under the policy that sampled; None: the policy has not changed."""
    ref_logp_BT: Tensor | None = None
    experts: Mapping[int, Tensor] | None = None
    """By MoE layer, the engine's routed experts of each token when the answers were sampled."""


def micro_batches(answers: Sequence[Answer], config: GRPOConfig, model: Transformer) -> Iterator[MicroBatch]:
    """Answers of similar length together; those without any gradient left out."""
    loss = config.loss
    rows: list[Answer] = []
    for answer in sorted(answers, key=lambda answer: answer.num_inputs):
        if is_masked(answer, loss) or not (answer.advantage or loss.beta):
            continue
        if rows and (len(rows) + 1) * answer.num_inputs > config.micro_tokens:
            yield _padded(rows, loss, model)
            rows = []
        rows.append(answer)
    if rows:
        yield _padded(rows, loss, model)


def answer_logprobs(
    model: Transformer, batch: MicroBatch, temperature: float, vocabulary: Vocabulary
) -> Tensor:
    """Log-probabilities (B, T) of the answers' tokens at this temperature, 0 elsewhere."""
    hidden_MD = model.features(batch.inputs_BT, experts=batch.experts).hidden_BTD.flatten(0, 1)
    at_M = (batch.targets_BT != IGNORE_INDEX).flatten().nonzero()[:, 0]
    hidden_MD = hidden_MD[at_M] if temperature == 1.0 else hidden_MD[at_M] / temperature
    targets_M = vocabulary.places(batch.targets_BT.flatten()[at_M])
    logp_M = kernels.token_logprobs(hidden_MD, vocabulary.rows(model.head_weight_WD), targets_M)
    logp = torch.zeros(batch.targets_BT.numel(), device=logp_M.device).index_copy(0, at_M, logp_M)
    return logp.view_as(batch.targets_BT)


def is_masked(answer: Answer, loss: PolicyLossConfig) -> bool:
    """Return whether an answer is left out of the loss because it was cut at the length limit."""
    return loss.mask_truncated_completions and answer.is_truncated


def _padded(answers: Sequence[Answer], loss: PolicyLossConfig, model: Transformer) -> MicroBatch:
    device = model.device
    width = max(answer.num_inputs for answer in answers)
    inputs = torch.zeros(len(answers), width, dtype=torch.int64)
    targets = torch.full((len(answers), width), IGNORE_INDEX)
    engine_logp = torch.zeros(len(answers), width)
    for n, answer in enumerate(answers):
        first, end = len(answer.prompt_ids) - 1, answer.num_inputs
        inputs[n, :end] = torch.tensor((*answer.prompt_ids, *answer.token_ids))[:-1]
        targets[n, first:end] = torch.tensor(answer.token_ids)
        if answer.is_own:  # results of tools are read and not learned
            targets[n, first:end][~torch.tensor(answer.is_own)] = IGNORE_INDEX
        engine_logp[n, first:end] = torch.tensor(answer.logprobs)
    truncated_B = torch.tensor([answer.is_truncated for answer in answers])
    mask = loss_mask(
        targets != IGNORE_INDEX, valid_B=torch.ones_like(truncated_B), truncated_B=truncated_B, config=loss
    )
    return MicroBatch(
        inputs_BT=inputs.to(device),
        targets_BT=targets.to(device),
        mask_BT=mask.to(device),
        advantages_B=torch.tensor([answer.advantage for answer in answers]).to(device),
        engine_logp_BT=engine_logp.to(device),
        num_tokens=sum(answer.num_inputs for answer in answers),
        experts=_experts(answers, width, model),
    )


def _experts(answers: Sequence[Answer], width: int, model: Transformer) -> dict[int, Tensor] | None:
    """By MoE layer the experts (B * T, K) that the engine chose; None if it did not record them."""
    recorded_experts = [answer.experts for answer in answers if answer.experts is not None]
    if len(recorded_experts) < len(answers):
        return None
    layers, per_token = model.config.moe_layers, recorded_experts[0].shape[-1]
    any_experts = torch.arange(per_token)  # of padding
    experts_BTLK = any_experts.repeat(len(answers), width, len(layers), 1)
    for n, experts in enumerate(recorded_experts):
        experts_BTLK[n, : len(experts)] = experts
    flat = experts_BTLK.flatten(0, 1).to(model.device)
    return {layer: flat[:, place].contiguous() for place, layer in enumerate(layers)}
