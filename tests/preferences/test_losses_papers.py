"""Losses and gradients on random batches, against the papers' formulas written with probabilities."""

import pytest
import torch
from torch import Tensor

from shoestring.preferences.losses import (
    Answers,
    PreferenceLossConfig,
    dpo,
    ipo,
    kl_estimate,
    kto,
    orpo,
    simpo,
)

from .batches import BATCHES, Batch, mismatched, random_batch

every_batch = pytest.mark.parametrize("seed", range(BATCHES))


def assert_same(batch: Batch, ours: Tensor, theirs: Tensor) -> None:
    """Equal losses, and equal gradients of every number of the model."""
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-10)
    gradients = [torch.autograd.grad(loss, batch.policy_WW, retain_graph=True)[0] for loss in (ours, theirs)]
    assert gradients[0].abs().max() > 1e-4
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-10)


def probability(answers: Answers) -> tuple[Tensor, Tensor]:
    """pi(y|x) of the policy and of the reference."""
    return answers.logp_B.exp(), answers.ref_logp_B.exp()


def pair(batch: Batch) -> tuple[Answers, Answers]:
    return batch.answers(batch.chosen_BT), batch.answers(batch.rejected_BT)


@every_batch
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_dpo(seed, smoothing):
    """2305.18290 eq. 7, and the mean of both labels by their chances."""
    batch = random_batch(seed)
    chosen, rejected = pair(batch)
    (w, w_ref), (v, v_ref) = probability(chosen), probability(rejected)
    right = ((w / w_ref) / (v / v_ref)) ** 0.1
    right = right / (1 + right)  # the Bradley-Terry model: the chance that the first is preferred
    theirs = -((1 - smoothing) * right.log() + smoothing * (1 - right).log()).mean()
    ours = dpo(chosen, rejected, PreferenceLossConfig(label_smoothing=smoothing)).mean()
    assert_same(batch, ours, theirs)


@every_batch
def test_ipo(seed):
    """2310.12036 eq. 17, with geometric means over tokens."""
    batch = random_batch(seed)
    chosen, rejected = pair(batch)
    (w, w_ref), (v, v_ref) = probability(chosen), probability(rejected)
    h = ((w / w_ref) ** (1 / chosen.tokens_B)).log() - ((v / v_ref) ** (1 / rejected.tokens_B)).log()
    ours = ipo(chosen, rejected, PreferenceLossConfig(loss_type="ipo", beta=0.4)).mean()
    assert_same(batch, ours, ((h - 1 / 0.8) ** 2).mean())


@every_batch
def test_simpo(seed):
    """2405.14734 eq. 6."""
    batch = random_batch(seed)
    chosen, rejected = pair(batch)
    w, v = (p.logp_B.exp() ** (1 / p.tokens_B) for p in (chosen, rejected))
    theirs = -torch.sigmoid(2.5 * w.log() - 2.5 * v.log() - 0.7).log().mean()
    settings = PreferenceLossConfig(loss_type="simpo", beta=2.5, simpo_gamma=0.7)
    assert_same(batch, simpo(chosen, rejected, settings).mean(), theirs)


@every_batch
def test_kto(seed):
    """2402.01306 eq. 7: weight minus value, for each answer by its own label."""
    batch = random_batch(seed)
    ids = torch.cat((batch.chosen_BT, batch.rejected_BT))
    is_good = torch.arange(len(ids)) < len(batch.chosen_BT)
    answers, others = batch.answers(ids), batch.answers(mismatched(ids))
    kl = others.log_ratio_B.mean().detach().clamp(min=0)
    value = []
    for n in range(len(ids)):
        r = (answers.logp_B[n].exp() / answers.ref_logp_B[n].exp()).log()
        value.append(
            1.2 * torch.sigmoid(0.2 * (r - kl)) if is_good[n] else 0.9 * torch.sigmoid(0.2 * (kl - r))
        )
    theirs = torch.where(is_good, 1.2, 0.9).double().mean() - torch.stack(value).mean()
    settings = PreferenceLossConfig(loss_type="kto", beta=0.2, desirable_weight=1.2, undesirable_weight=0.9)
    ours = kto(answers, is_good, kl_estimate(others.log_ratio_B), settings).mean()
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-7)  # the weights' sum above is in float32
    assert_same(batch, ours - ours.detach(), theirs - theirs.detach())


@every_batch
def test_orpo(seed):
    """2403.07691 eq. 6 and 7, with the odds of eq. 4."""
    batch = random_batch(seed)
    chosen, rejected = pair(batch)
    p, q = (each.logp_B.exp() ** (1 / each.tokens_B) for each in (chosen, rejected))
    ratio = (p / (1 - p)) / (q / (1 - q))
    nll = -chosen.logp_B.sum() / chosen.tokens_B.sum()
    theirs = nll - 0.3 * torch.sigmoid(ratio.log()).log().mean()
    mean_tokens = float(chosen.tokens_B.double().mean())
    settings = PreferenceLossConfig(loss_type="orpo", beta=0.3)
    assert_same(batch, orpo(chosen, rejected, settings, mean_tokens=mean_tokens).mean(), theirs)
