"""The objective of a policy that learns from preferences: its losses, and the reference that it starts as."""

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
from torch import Tensor

from shoestring.cost.step import Flops, forward
from shoestring.preferences.data import AnswerBatch, EncodedAnswer
from shoestring.preferences.logps import (
    FILE,
    Reference,
    answer_logprobs,
    compute_reference,
    mismatched_logprobs,
    reference_key,
    stored_or_computed,
)
from shoestring.preferences.losses import (
    Answers,
    PreferenceLossConfig,
    dpo,
    ipo,
    kl_estimate,
    kto,
    orpo,
    rewards,
    simpo,
)
from shoestring.preferences.outcome import Outcome
from shoestring.preferences.run import ComparisonRun
from shoestring.train.runs.flops import learning_flops, method_of, pass_of

log = logging.getLogger(__name__)

PAIR_LOSSES = {"dpo": dpo, "ipo": ipo, "simpo": simpo}


class PolicyObjective:
    """Losses of a run's preferences under its model, compared with the reference where the loss has one."""

    def __init__(self, run: ComparisonRun, loss: PreferenceLossConfig, reference: Reference | None) -> None:
        self.run, self.loss, self.reference = run, loss, reference

    def judge(self, units: Sequence[int]) -> Iterator[Outcome]:
        """The outcome of each micro-batch of a step."""
        kl = self._kl(units) if self.loss.loss_type == "kto" else torch.zeros(())
        data, config = self.run.data, self.run.config
        chosen = [data.answers[data.units[unit][0]] for unit in units]
        mean_tokens = sum(int(answer.loss_mask.sum()) for answer in chosen) / len(chosen)
        for batch in data.batches(units, config.micro_tokens, self.run.model.device):
            yield self._outcome(batch, kl, mean_tokens)

    def _outcome(self, batch: AnswerBatch, kl: Tensor, mean_tokens: float) -> Outcome:
        loss = self.loss
        answers = self._answers(batch)
        rewards_R = rewards(answers, loss)
        if loss.loss_type == "kto":
            loss_B = kto(answers, batch.is_chosen_B, kl, loss)
            is_right_B = (rewards_R > loss.strength * kl) == batch.is_chosen_B
        else:
            half = len(rewards_R) // 2
            chosen, rejected = answers.part(slice(half)), answers.part(slice(half, None))
            if loss.loss_type == "orpo":
                loss_B = orpo(chosen, rejected, loss, mean_tokens=mean_tokens)
            else:
                loss_B = PAIR_LOSSES[loss.loss_type](chosen, rejected, loss)
            is_right_B = rewards_R[:half] > rewards_R[half:]
        return Outcome(
            loss_B=loss_B,
            rewards_R=rewards_R,
            is_chosen_R=batch.is_chosen_B,
            is_right_B=is_right_B,
            logp_R=answers.logp_B.detach(),
            more={"kl": float(kl)} if loss.loss_type == "kto" else {},
            flops=self._flops(batch),
        )

    def _flops(self, batch: AnswerBatch) -> Flops:
        """FLOPs of learning from a micro-batch; KTO's point of comparison is as many answers once more."""
        run = self.run
        flops = learning_flops(run.model.config, [batch.rows], method_of(run.config, logits_again=True))
        if self.loss.loss_type == "kto":
            flops["reference"] = sum(forward(run.model.config, pass_of(batch.rows)).values())
        return flops

    def _answers(self, batch: AnswerBatch) -> Answers:
        logp_R = answer_logprobs(self.run.model, batch.rows)
        if self.reference is None:
            return Answers(logp_R, batch.tokens_B)
        return Answers(logp_R, batch.tokens_B, self.reference.logp[batch.numbers].to(logp_R.device))

    def _kl(self, units: Sequence[int]) -> Tensor:
        """KTO's point of comparison for the whole step."""
        assert self.reference is not None
        logp_B = mismatched_logprobs(self.run.model, self.run.data, units, self.run.config.micro_tokens)
        return kl_estimate(logp_B - self.reference.mismatched_logp[list(units)].to(logp_B.device))


def warn_of_imbalance(answers: Sequence[EncodedAnswer], loss: PreferenceLossConfig) -> None:
    """Warn where good and bad answers, times their weights, are not 1:1 to 4:3 (KTO, section 4.2)."""
    good = sum(answer.is_chosen for answer in answers)
    bad = len(answers) - good
    ratio = loss.desirable_weight * good / max(loss.undesirable_weight * bad, 1e-9)
    if good and bad and not 0.995 <= ratio <= 1.34:
        name, weight = "desirable_weight", loss.undesirable_weight * bad / good
        if good > bad:
            name, weight = "undesirable_weight", loss.desirable_weight * good / bad
        log.warning(
            "%s answers are desirable and %s are not; KTO learns best with weights that make up for it: "
            "--set loss.%s=%.3g",
            f"{good:,}",
            f"{bad:,}",
            name,
            weight,
        )


def _reference_flops(run: ComparisonRun, loss: PreferenceLossConfig) -> float:
    """FLOPs of the reference: a forward pass of all answers, and for KTO of as many mismatched ones."""
    config, total = run.config, 0.0
    for units in (*run.batches.all, *run.heldout_batches):
        for batch in run.data.batches(units, config.micro_tokens, torch.device("cpu")):
            total += sum(forward(run.model.config, pass_of(batch.rows)).values())
    return total * (2 if loss.loss_type == "kto" else 1)


def open_reference(
    run: ComparisonRun, loss: PreferenceLossConfig, say: Callable[[str], None], *, is_resumed: bool
) -> Reference | None:
    """Log-probabilities under the model that the run starts as, stored beside it; None if none are needed.

    Call it before a checkpoint is restored. Raises CheckpointError as `stored_or_computed` does.
    """
    if not loss.needs_reference:
        return None
    config = run.config
    compute = partial(
        compute_reference,
        run.model,
        run.data,
        [*run.batches.all, *run.heldout_batches],
        micro_tokens=config.micro_tokens,
        with_mismatched=loss.loss_type == "kto",
        say=say,
    )
    settings = (loss.loss_type, config.batch_size, config.seed, config.heldout_fraction)
    start = json.dumps(run.manifest["start"], sort_keys=True)
    key = reference_key([run.data.key, start, *map(str, settings)])
    if not is_resumed:
        run.flops = {"reference": _reference_flops(run, loss)}
    return stored_or_computed(run.out / FILE, key, compute, is_resumed=is_resumed)
