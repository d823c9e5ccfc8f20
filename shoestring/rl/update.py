"""One round of answers -> optimizer steps: micro-batches, log-probabilities, the policy loss, clip, step."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from shoestring import kernels
from shoestring.errors import NonFiniteError
from shoestring.model.transformer import Transformer
from shoestring.rl.losses import Denominators, PolicyLossConfig, loss_mask, policy_loss
from shoestring.rl.recipe import GRPOConfig
from shoestring.rl.rollout import Answer
from shoestring.train.optim import Optimizers
from shoestring.train.parallel import Ranks
from shoestring.train.step import clip_and_step


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """An answer and how much better it was than its group."""

    answer: Answer
    advantage: float
    number: int = 0
    """Its place among all that the step learns from, whichever process holds them."""


@dataclass(slots=True, kw_only=True)
class Micro:
    """Answers that go through the model together, padded on the right: N rows, T tokens."""

    inputs_NT: Tensor
    targets_NT: Tensor
    """What follows each input if it is of the answer, else -1."""
    mask_NT: Tensor
    """The answers' tokens that are in the loss."""
    advantages_N: Tensor
    engine_logp_NT: Tensor
    tokens: int
    """Without padding."""
    old_logp_NT: Tensor | None = None
    """Of the policy that sampled, by the trainer; None: the policy as it is."""
    ref_logp_NT: Tensor | None = None
    experts: Mapping[int, Tensor] | None = None
    """Where the MoE layers sent the tokens when the answers were sampled."""


@dataclass(slots=True, kw_only=True)
class UpdateStats:
    """Means over the tokens of a round, and over its optimizer steps where it had several."""

    loss: float = 0.0
    grad_norm: float = 0.0
    clip_share: float = 0.0
    kl: float = 0.0
    drift: float = 0.0
    off_policy_share: float = 0.0
    gap: float = 0.0
    """Largest difference between the trainer's and the engine's log-probability of a sampled token."""
    tokens: int = 0
    """Tokens that went through the model for a gradient, prompts included and padding not."""
    skipped: int = 0
    """Optimizer steps left out because a number was not finite."""
    losses: list[float] = field(default_factory=list)


def update(
    model: Transformer,
    reference: Transformer | None,
    optimizers: Optimizers,
    judged: Sequence[Judged],
    config: GRPOConfig,
    *,
    lr_share: float,
    ranks: Ranks,
) -> UpdateStats:
    """Learn from a round of answers in `config.steps_per_generation` optimizer steps.

    `judged` holds every answer with a reward; those whose gradient is zero are counted in the denominators
    and not computed. Micro-batches change nothing but memory. A step whose loss or gradient is not finite
    is left out, with weights and moments untouched. Each process brings its own answers to the same steps:
    weights and figures become those of one process with all of them, but for rounding.
    """
    stats = UpdateStats()
    parts = _parts(judged, min(config.steps_per_generation, max(int(ranks.sum([len(judged)])[0]), 1)))
    rounds = [list(_micro_batches(part, config, model)) for part in parts]
    if config.steps_per_generation > 1 or reference is not None:
        for micro in (micro for micros in rounds for micro in micros):
            _look_back(model, reference, micro, config)
    for part, micros in zip(parts, rounds, strict=True):
        whole = whole_step(part, config, ranks)
        _step(model, optimizers, micros, whole, config, lr_share, stats, ranks)
    share = 1 / len(parts)
    stats.loss = sum(stats.losses)
    for name in ("loss", "grad_norm", "clip_share", "kl", "drift", "off_policy_share"):
        setattr(stats, name, getattr(stats, name) * share)
    _add_up(stats, ranks)
    return stats


def _add_up(stats: UpdateStats, ranks: Ranks) -> None:
    """The figures that each process has of its own answers become those of all."""
    names = ("clip_share", "kl", "drift", "off_policy_share")
    for name, value in zip(names, ranks.sum(getattr(stats, name) for name in names), strict=True):
        setattr(stats, name, value)
    stats.tokens = int(ranks.sum([stats.tokens])[0])
    stats.gap = max(ranks.each(stats.gap))


def whole_step(judged: Sequence[Judged], config: GRPOConfig, ranks: Ranks) -> Denominators:
    """What the sums of an optimizer step are divided by: the answers of all processes, computed or not."""
    kept = [
        item.answer
        for item in judged
        if not (config.loss.mask_truncated_completions and item.answer.is_truncated)
    ]
    sequences, tokens = ranks.sum([len(kept), sum(len(answer.token_ids) for answer in kept)])
    return Denominators(sequences=int(sequences), tokens=int(tokens), max_tokens=config.max_tokens)


def _parts(judged: Sequence[Judged], count: int) -> list[Sequence[Judged]]:
    """The answers dealt to `count` optimizer steps, each with its share of every group."""
    return [[item for item in judged if item.number % count == start] for start in range(count)]


def _micro_batches(judged: Sequence[Judged], config: GRPOConfig, model: Transformer) -> Iterator[Micro]:
    """Answers of similar length together; those without any gradient left out."""
    loss = config.loss
    kept = [
        item
        for item in judged
        if (item.advantage or loss.beta)
        and not (loss.mask_truncated_completions and item.answer.is_truncated)
    ]
    kept.sort(key=lambda item: _length(item.answer))
    rows: list[Judged] = []
    for item in kept:
        if rows and (len(rows) + 1) * _length(item.answer) > config.micro_tokens:
            yield _pad(rows, loss, model)
            rows = []
        rows.append(item)
    if rows:
        yield _pad(rows, loss, model)


def _length(answer: Answer) -> int:
    return len(answer.prompt_ids) + len(answer.token_ids) - 1


def _pad(rows: Sequence[Judged], loss: PolicyLossConfig, model: Transformer) -> Micro:
    device = model.device
    width = max(_length(item.answer) for item in rows)
    inputs, targets = torch.zeros(len(rows), width, dtype=torch.int64), torch.full((len(rows), width), -1)
    engine_logp = torch.zeros(len(rows), width)
    for n, item in enumerate(rows):
        answer, first = item.answer, len(item.answer.prompt_ids) - 1
        ids = torch.tensor((*answer.prompt_ids, *answer.token_ids))
        inputs[n, : len(ids) - 1] = ids[:-1]
        targets[n, first : len(ids) - 1] = ids[first + 1 :]
        engine_logp[n, first : len(ids) - 1] = torch.tensor(answer.logprobs)
    truncated_N = torch.tensor([item.answer.is_truncated for item in rows])
    mask = loss_mask(targets >= 0, valid_N=torch.ones_like(truncated_N), truncated_N=truncated_N, config=loss)
    advantages_N = torch.tensor([item.advantage for item in rows])
    return Micro(
        inputs_NT=inputs.to(device),
        targets_NT=targets.to(device),
        mask_NT=mask.to(device),
        advantages_N=advantages_N.to(device),
        engine_logp_NT=engine_logp.to(device),
        tokens=sum(_length(item.answer) for item in rows),
        experts=_experts([item.answer for item in rows], width, model),
    )


def _experts(answers: Sequence[Answer], width: int, model: Transformer) -> dict[int, Tensor] | None:
    """By MoE layer the experts (N * T, K) that the engine chose; None if it did not keep them."""
    kept = [answer.experts for answer in answers if answer.experts is not None]
    if len(kept) < len(answers):
        return None
    layers, per_token = model.config.moe_layers, kept[0].shape[-1]
    experts_NTLK = torch.arange(per_token).repeat(
        len(answers), width, len(layers), 1
    )  # padding goes anywhere
    for n, experts in enumerate(kept):
        experts_NTLK[n, : len(experts)] = experts
    flat = experts_NTLK.flatten(0, 1).to(model.device)
    return {layer: flat[:, place].contiguous() for place, layer in enumerate(layers)}


def answer_logprobs(model: Transformer, micro: Micro, temperature: float) -> Tensor:
    """Log-probabilities (N, T) of the answers' tokens at this temperature, 0 elsewhere."""
    hidden_MD = model.features(micro.inputs_NT, experts=micro.experts).hidden_BTD.flatten(0, 1)
    at_M = (micro.targets_NT >= 0).flatten().nonzero()[:, 0]
    hidden_MD = hidden_MD[at_M] if temperature == 1.0 else hidden_MD[at_M] / temperature
    logp_M = kernels.token_logprobs(hidden_MD, model.head_weight_WD, micro.targets_NT.flatten()[at_M])
    logp = torch.zeros(micro.targets_NT.numel(), device=logp_M.device).index_copy(0, at_M, logp_M)
    return logp.view_as(micro.targets_NT)


@torch.no_grad()
def _look_back(model: Transformer, reference: Transformer | None, micro: Micro, config: GRPOConfig) -> None:
    """Note what the policy that sampled, and the reference, say of the answers before anything is learned."""
    if config.steps_per_generation > 1:
        micro.old_logp_NT = answer_logprobs(model, micro, config.temperature)
    if reference is not None:
        own, micro.experts = micro.experts, None  # the reference's experts are its own
        micro.ref_logp_NT = answer_logprobs(reference, micro, config.temperature)
        micro.experts = own


def _step(
    model: Transformer,
    optimizers: Optimizers,
    micros: Sequence[Micro],
    whole: Denominators,
    config: GRPOConfig,
    lr_share: float,
    stats: UpdateStats,
    ranks: Ranks,
) -> None:
    """One optimizer step over all micro-batches; none if there is nothing to learn, moments included."""
    if not ranks.any(bool(micros)):
        return
    optimizers.zero_grad()
    loss_sum = 0.0
    try:
        for micro in micros:
            loss_sum += _backward(model, micro, whole, config, stats)
    except NonFiniteError:
        loss_sum = math.nan
    loss_sum = ranks.sum([loss_sum])[0]  # not finite on one process: not finite on all
    try:
        stats.grad_norm += clip_and_step(
            model,
            optimizers,
            loss_sum,
            max_grad_norm=config.optim.max_grad_norm,
            lr_share=lr_share,
            ranks=ranks,
        )
    except NonFiniteError:
        stats.skipped += 1
        return
    stats.losses.append(loss_sum)


def _backward(
    model: Transformer, micro: Micro, whole: Denominators, config: GRPOConfig, stats: UpdateStats
) -> float:
    """Add this part's gradient and figures; its share of the step's loss."""
    logp_NT = answer_logprobs(model, micro, config.temperature)
    old_NT = logp_NT.detach() if micro.old_logp_NT is None else micro.old_logp_NT
    arguments = (logp_NT, old_NT, micro.ref_logp_NT, micro.advantages_N, micro.mask_NT, config.loss)
    result = policy_loss(*arguments, denominators=whole)
    result.loss.backward()
    for name in ("clip_share", "kl", "drift", "off_policy_share"):
        setattr(stats, name, getattr(stats, name) + float(getattr(result, name)))
    stats.tokens += micro.tokens
    if config.temperature == 1.0 and not stats.losses:  # nothing was learned since they were sampled
        gap_NT = (logp_NT.detach() - micro.engine_logp_NT).abs() * (micro.targets_NT >= 0)
        stats.gap = max(stats.gap, float(gap_NT.max()))
    return float(result.loss.detach())
