"""The update of a step: answers dealt to optimizer steps, and the policy loss over micro-batches."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch

from shoestring.cost.step import PARTS, Flops, Pass, added, forward, learning
from shoestring.data.packing import IGNORE_INDEX
from shoestring.errors import NonFiniteError
from shoestring.rl.losses import Denominators, denominators, policy_loss
from shoestring.rl.micro_batches import MicroBatch, answer_logprobs, is_masked, micro_batches
from shoestring.rl.recipe import GRPOConfig
from shoestring.rl.rollout import Answer
from shoestring.rl.run import Run
from shoestring.train.parallel import Ranks
from shoestring.train.runs.flops import method_of, update_flops
from shoestring.train.step import clip_and_step


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateStats:
    """Means over the tokens of a step, and over its optimizer steps where it had several."""

    loss: float
    grad_norm: float
    clip_share: float
    kl: float
    drift: float
    off_policy_share: float
    gap: float
    """Largest difference between the trainer's and the engine's log-probability of a sampled token."""
    num_tokens: int
    """Tokens that went through the model for a gradient, prompts included and padding not."""
    flops: Flops
    """FLOPs of all processes: learning, log-probabilities under earlier weights, and the updates."""
    num_skipped: int
    """Optimizer steps left out because a number was not finite."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """A micro-batch's shares of its optimizer step's figures; those of several micro-batches add up."""

    loss: float = 0.0
    clip_share: float = 0.0
    kl: float = 0.0
    drift: float = 0.0
    off_policy_share: float = 0.0
    num_tokens: int = 0
    gap: float = 0.0
    """The largest counts in a sum."""

    def __add__(self, other: "Figures") -> "Figures":
        return Figures(
            loss=self.loss + other.loss,
            clip_share=self.clip_share + other.clip_share,
            kl=self.kl + other.kl,
            drift=self.drift + other.drift,
            off_policy_share=self.off_policy_share + other.off_policy_share,
            num_tokens=self.num_tokens + other.num_tokens,
            gap=max(self.gap, other.gap),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizerStep:
    """The outcome of one optimizer step."""

    parts: Sequence[Figures] = ()
    """This process's micro-batches."""
    loss: float = 0.0
    grad_norm: float | None = None
    """Before clipping; None: the weights have not changed."""
    flops: Flops = field(default_factory=dict)
    """This process's."""
    is_skipped: bool = False
    """Whether the loss or the gradient was not finite."""


def update(run: Run, rounds: Sequence[Sequence[Answer]], *, lr_share: float) -> UpdateStats:
    """Learn from the answers of one or more rounds of sampling in `steps_per_generation` optimizer steps.

    `rounds` hold every answer with a reward; those whose gradient is zero are counted in the denominators
    and not computed. Micro-batches change nothing but memory. A step whose loss or gradient is not finite
    is left out, with weights and moments untouched. Each process brings its own answers to the same steps:
    weights and figures become those of one process with all of them, but for rounding.
    """
    config, ranks = run.config, run.ranks
    dealt_answers = deal(rounds, config.steps_per_generation, ranks)
    dealt_batches = [
        [_with_old_logprobs(run, batch) for batch in micro_batches(answers, config, run.model)]
        for answers in dealt_answers
    ]
    steps = [
        _optimizer_step(run, batches, whole_step(answers, config, ranks), lr_share)
        for answers, batches in zip(dealt_answers, dealt_batches, strict=True)
    ]
    return _mean(steps, ranks)


def deal(rounds: Sequence[Sequence[Answer]], num_steps: int, ranks: Ranks) -> list[list[Answer]]:
    """The answers in turn to at most `num_steps` optimizer steps, so that each gets a share of every group.

    An answer goes by its place among those of all processes: their number changes nothing.
    """
    counts = [[int(count) for count in ranks.each(len(answers))] for answers in rounds]
    total = sum(map(sum, counts))
    steps: list[list[Answer]] = [[] for _ in range(min(num_steps, max(total, 1)))]
    start = 0
    for answers, of_ranks in zip(rounds, counts, strict=True):
        for place, answer in enumerate(answers, start=start + sum(of_ranks[: ranks.rank])):
            steps[place % len(steps)].append(answer)
        start += sum(of_ranks)
    return steps


def whole_step(answers: Sequence[Answer], config: GRPOConfig, ranks: Ranks) -> Denominators:
    """The denominators of an optimizer step: the answers of all processes, whether computed or not."""
    lengths = [answer.num_own for answer in answers if not is_masked(answer, config.loss)]
    own = denominators(lengths, config.max_tokens)
    return replace(own, sequences=ranks.count(own.sequences), tokens=ranks.count(own.tokens))


@torch.no_grad()
def _with_old_logprobs(run: Run, batch: MicroBatch) -> MicroBatch:
    """The batch with log-probabilities of the policy that sampled and of the reference, before any update."""
    temperature = run.config.temperature
    if run.config.steps_per_generation > 1:
        batch = replace(batch, old_logp_BT=answer_logprobs(run.model, batch, temperature, run.vocabulary))
    if run.reference is not None:
        freely_routed = replace(batch, experts=None)
        with run.reference.model() as reference:
            ref_logp_BT = answer_logprobs(reference, freely_routed, temperature, run.vocabulary)
        batch = replace(batch, ref_logp_BT=ref_logp_BT)
    return batch


def _optimizer_step(
    run: Run, batches: Sequence[MicroBatch], whole: Denominators, lr_share: float
) -> OptimizerStep:
    """One update from all micro-batches; none if there is nothing to learn, moments included."""
    if not run.ranks.any(bool(batches)):
        return OptimizerStep()
    run.optimizers.zero_grad()
    flops = added(*(_flops(run, batch) for batch in batches))
    parts: list[Figures] = []
    try:
        for batch in batches:
            parts.append(_backward(run, batch, whole))
            run.engine.threads.follow()
        loss = sum(part.loss for part in parts)
    except NonFiniteError:
        loss = math.nan
    loss = run.ranks.sum([loss])[0]  # not finite on one process: not finite on all
    try:
        grad_norm = clip_and_step(
            run.model,
            run.optimizers,
            loss,
            max_grad_norm=run.config.optim.max_grad_norm,
            lr_share=lr_share,
            ranks=run.ranks,
        )
    except NonFiniteError:
        return OptimizerStep(parts=parts, flops=flops, is_skipped=True)
    flops = added(flops, update_flops(run.optimizers))
    return OptimizerStep(parts=parts, loss=loss, grad_norm=grad_norm, flops=flops)


def _flops(run: Run, batch: MicroBatch) -> Flops:
    """FLOPs of learning from a micro-batch, and of its log-probabilities under earlier weights."""
    predictions = int((batch.targets_BT != IGNORE_INDEX).sum())
    work, config = Pass.of_segments(batch.segments_S2.tolist(), predictions), run.model.config
    flops = learning(config, work, method_of(run.config, logits_again=True))
    num_earlier = (batch.old_logp_BT is not None) + (batch.ref_logp_BT is not None)
    if num_earlier:
        flops["reference"] = num_earlier * sum(forward(config, work).values())
    return flops


def _backward(run: Run, batch: MicroBatch, whole: Denominators) -> Figures:
    """Add the gradient of a micro-batch's share of the loss; returns its figures."""
    config = run.config
    logp_BT = answer_logprobs(run.model, batch, config.temperature, run.vocabulary)
    old_logp_BT = logp_BT.detach() if batch.old_logp_BT is None else batch.old_logp_BT
    result = policy_loss(
        logp_BT,
        old_logp_BT,
        batch.ref_logp_BT,
        batch.advantages_B,
        batch.mask_BT,
        config.loss,
        denominators=whole,
    )
    result.loss.backward()
    gap_BT = (logp_BT.detach() - batch.engine_logp_BT).abs() * (batch.targets_BT != IGNORE_INDEX)
    return Figures(
        loss=float(result.loss.detach()),
        clip_share=float(result.clip_share),
        kl=float(result.kl),
        drift=float(result.drift),
        off_policy_share=float(result.off_policy_share),
        num_tokens=batch.num_tokens,
        gap=float(gap_BT.max()) if config.temperature == 1.0 else 0.0,  # the engine's are at 1
    )


def _mean(steps: Sequence[OptimizerStep], ranks: Ranks) -> UpdateStats:
    """The figures of all processes over a step's optimizer steps."""
    share = 1 / len(steps)
    total = sum((part for step in steps for part in step.parts), Figures())
    flops = added(*(step.flops for step in steps))
    figures = (total.clip_share, total.kl, total.drift, total.off_policy_share)
    clip_share, kl, drift, off_policy_share = ranks.sum(figure * share for figure in figures)
    return UpdateStats(
        loss=sum(step.loss for step in steps) * share,
        grad_norm=sum(step.grad_norm or 0.0 for step in steps) * share,
        clip_share=clip_share,
        kl=kl,
        drift=drift,
        off_policy_share=off_policy_share,
        gap=max(ranks.each(_gap(steps))),
        num_tokens=ranks.count(total.num_tokens),
        flops=dict(zip(PARTS, ranks.sum(flops.get(name, 0) for name in PARTS), strict=True)),
        num_skipped=sum(step.is_skipped for step in steps),
    )


def _gap(steps: Sequence[OptimizerStep]) -> float:
    """The largest gap between trainer and engine while both had the same weights."""
    gap = 0.0
    for step in steps:
        gap = max([gap, *(part.gap for part in step.parts)])
        if step.grad_norm is not None:
            break
    return gap
