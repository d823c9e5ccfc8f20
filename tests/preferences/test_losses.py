"""Identities of the losses that hold exactly, from their papers; settings that have no effect are refused."""

import math

import pytest
import torch
from torch import Tensor

from shoestring.errors import ConfigError
from shoestring.preferences.losses import (
    Answers,
    PreferenceLossConfig,
    dpo,
    ipo,
    kl_estimate,
    kto,
    log_odds_ratio,
    orpo,
    rewards,
    simpo,
)

B = 6


def numbers(seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return -20 * torch.rand(B, generator=generator, dtype=torch.float64) - 1


def answers(seed: int, *, ref: Tensor | None = None) -> Answers:
    """Answers of 3 to 8 tokens with log-probabilities of -1 to -21."""
    tokens = torch.arange(3, 3 + B, dtype=torch.float64)
    return Answers(numbers(seed).requires_grad_(), tokens, numbers(seed + 100) if ref is None else ref)


def config(loss_type: str, **settings) -> PreferenceLossConfig:
    return PreferenceLossConfig(loss_type=loss_type, **settings)


def gradients(loss_B: Tensor, *of: Answers) -> tuple[Tensor, ...]:
    return torch.autograd.grad(loss_B.sum(), [each.logp_B for each in of])


def same(actual: Tensor, expected: Tensor | float) -> None:
    expected = torch.as_tensor(expected, dtype=torch.float64).expand(actual.shape)
    torch.testing.assert_close(actual.detach(), expected, rtol=1e-12, atol=1e-12)


def at_reference(seed: int) -> Answers:
    one = answers(seed)
    return one._replace(ref_logp_B=one.logp_B.detach().clone())


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_dpo_at_the_reference_is_log_two(smoothing):
    """Nothing is preferred yet: a coin's entropy, and a gradient of (1 - 2 smoothing) beta / 2."""
    chosen, rejected, settings = at_reference(1), at_reference(2), config("dpo", label_smoothing=smoothing)
    loss_B = dpo(chosen, rejected, settings)
    same(loss_B, math.log(2))
    of_chosen, of_rejected = gradients(loss_B, chosen, rejected)
    same(of_chosen, -(1 - 2 * smoothing) * 0.1 / 2)
    same(of_rejected, -of_chosen)
    same(rewards(chosen, settings), 0.0)


def test_dpo_s_gradient_is_weighed_by_how_wrong_the_margin_is():
    """DPO section 4: beta sigmoid(rejected reward - chosen reward), up for chosen and down for rejected."""
    chosen, rejected, settings = answers(1), answers(2), config("dpo", beta=0.3)
    of_chosen, of_rejected = gradients(dpo(chosen, rejected, settings), chosen, rejected)
    wrong = torch.sigmoid(rewards(rejected, settings) - rewards(chosen, settings))
    same(of_chosen, -0.3 * wrong)
    same(of_rejected, 0.3 * wrong)


def test_only_the_difference_to_the_reference_counts():
    """A reference that finds both answers 3 nats likelier changes nothing."""
    chosen, rejected, settings = answers(1), answers(2), config("dpo")
    moved = [each._replace(ref_logp_B=each.ref_logp_B + 3.0) for each in (chosen, rejected)]
    same(dpo(*moved, settings), dpo(chosen, rejected, settings))


def test_smoothing_mixes_in_the_pair_turned_round():
    chosen, rejected = answers(1), answers(2)
    right = dpo(chosen, rejected, config("dpo", label_smoothing=0.25))
    wrong = dpo(rejected, chosen, config("dpo", label_smoothing=0.25))
    plain, turned = (dpo(*pair, config("dpo")) for pair in ((chosen, rejected), (rejected, chosen)))
    same(right, 0.75 * plain + 0.25 * turned)
    same(right + wrong, plain + turned)


def test_ipo_is_least_at_its_margin_and_grows_by_the_square():
    """IPO eq. 17: the mean log-ratio of a token differs by 1 / (2 beta), and no pull is left there."""
    settings = config("ipo", beta=0.25)
    chosen, rejected = at_reference(1), at_reference(2)
    same(ipo(chosen, rejected, settings), 2.0**2)
    goal = chosen._replace(ref_logp_B=chosen.ref_logp_B - 2.0 * chosen.tokens_B)
    same(ipo(goal, rejected, settings), 0.0)
    same(gradients(ipo(goal, rejected, settings), goal)[0], 0.0)
    beyond = chosen._replace(ref_logp_B=chosen.ref_logp_B - 5.0 * chosen.tokens_B)
    same(ipo(beyond, rejected, settings), 3.0**2)


def test_simpo_needs_no_reference_and_gives_length_no_advantage():
    settings = config("simpo", beta=2.0, simpo_gamma=0.5)
    chosen, rejected = answers(1)._replace(ref_logp_B=None), answers(2)._replace(ref_logp_B=None)
    longer = Answers(chosen.logp_B * 3, chosen.tokens_B * 3)
    same(simpo(longer, rejected, settings), simpo(chosen, rejected, settings))
    same(simpo(chosen, chosen, settings), math.log(1 + math.exp(0.5)))  # equal answers miss the margin
    margin = 2.0 * (chosen.mean_logp_B - rejected.mean_logp_B) - 0.5
    same(
        gradients(simpo(chosen, rejected, settings), chosen)[0],
        -2.0 * torch.sigmoid(-margin) / chosen.tokens_B,
    )


def test_kto_at_the_reference_is_half_of_the_weight():
    """KTO eq. 7 with z0 = 0: 1 - sigmoid(0); the pull is weight beta / 4, up or down."""
    some, is_good = at_reference(1), torch.arange(B) % 2 == 0
    settings = config("kto", desirable_weight=1.0, undesirable_weight=0.6)
    loss_B = kto(some, is_good, torch.zeros((), dtype=torch.float64), settings)
    weight = torch.where(is_good, 1.0, torch.tensor(0.6, dtype=torch.float64))
    same(loss_B, weight / 2)
    same(gradients(loss_B, some)[0], torch.where(is_good, -weight, weight) * 0.1 / 4)


def test_kto_saturates_for_answers_that_are_far_from_the_kl():
    """An answer that is far better than the point of comparison is left alone, whichever it is."""
    settings, kl = config("kto", beta=1.0), torch.tensor(2.0, dtype=torch.float64)
    base = at_reference(1)
    far = base._replace(ref_logp_B=base.ref_logp_B - 60.0)
    assert gradients(kto(far, torch.ones(B, dtype=torch.bool), kl, settings), far)[0].abs().max() < 1e-20
    same(kto(far, torch.zeros(B, dtype=torch.bool), kl, settings), 1.0)
    at_kl = base._replace(ref_logp_B=base.ref_logp_B - 2.0)
    same(kto(at_kl, torch.ones(B, dtype=torch.bool), kl, settings), 0.5)


def test_kto_s_point_of_comparison_is_a_constant_that_is_never_negative():
    ratio_B = numbers(3).requires_grad_()
    assert kl_estimate(ratio_B) == 0.0
    estimate = kl_estimate(-ratio_B)
    same(estimate, -ratio_B.detach().mean())
    assert not estimate.requires_grad


def test_orpo_is_likelihood_plus_odds_ratio():
    """ORPO eq. 6: what doubling beta adds is the odds ratio's part, the rest the likelihood's."""
    chosen, rejected = answers(1)._replace(ref_logp_B=None), answers(2)._replace(ref_logp_B=None)
    once, twice = (orpo(chosen, rejected, config("orpo", beta=beta), mean_tokens=5.0) for beta in (1.0, 2.0))
    same(2 * once - twice, -chosen.logp_B.detach() / 5.0)
    p, q = (each.mean_logp_B.detach().exp() for each in (chosen, rejected))
    ratio = (p / (1 - p)) / (q / (1 - q))
    same(log_odds_ratio(chosen, rejected), ratio.log())
    same(twice - once, -torch.sigmoid(ratio.log()).log())


def test_orpo_s_gradient_is_the_papers():
    """ORPO section 4.3, eq. 9-10: 1 / (1 + odds ratio) times grad log p / (1 - p) of both answers."""
    chosen, rejected = answers(1)._replace(ref_logp_B=None), answers(2)._replace(ref_logp_B=None)
    p, q = (each.mean_logp_B.detach().exp() for each in (chosen, rejected))
    wrong = 1 / (1 + (p / (1 - p)) / (q / (1 - q)))
    odds_B = -torch.nn.functional.logsigmoid(log_odds_ratio(chosen, rejected))
    of_chosen, of_rejected = gradients(odds_B, chosen, rejected)
    same(of_chosen, -wrong / (1 - p) / chosen.tokens_B)
    same(of_rejected, wrong / (1 - q) / rejected.tokens_B)


def test_certain_answers_have_finite_odds():
    """A probability that rounds to one has no finite odds in float32; loss and gradient stay finite."""
    sure = Answers(torch.zeros(2, requires_grad=True), torch.ones(2))
    loss_B = orpo(sure, sure, config("orpo"), mean_tokens=1.0)
    assert torch.isfinite(loss_B).all()
    assert all(torch.isfinite(gradient).all() for gradient in gradients(loss_B, sure))


def test_parts_of_a_batch_add_up():
    """A step is cut into micro-batches: one loss per pair, whoever is in the batch with it."""
    chosen, rejected = answers(1), answers(2)
    halves = [slice(0, 2), slice(2, B)]
    cut = [[Answers(*(value[part] for value in each)) for each in (chosen, rejected)] for part in halves]
    for loss, settings in ((dpo, config("dpo")), (ipo, config("ipo")), (simpo, config("simpo"))):
        same(torch.cat([loss(*pair, settings) for pair in cut]), loss(chosen, rejected, settings).detach())


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"loss_type": "ppo"}, "loss_type = 'ppo' is none of dpo, ipo, simpo, kto, orpo"),
        ({"beta": 0.0}, "loss.beta"),
        ({"label_smoothing": 0.5}, "loss.label_smoothing"),
        ({"loss_type": "kto", "undesirable_weight": math.nan}, "loss.undesirable_weight"),
        ({"loss_type": "kto", "label_smoothing": 0.1}, "changes dpo and simpo only"),
        ({"simpo_gamma": 0.5}, "loss.simpo_gamma changes simpo only"),
        ({"loss_type": "ipo", "desirable_weight": 2.0}, "loss.desirable_weight changes kto only"),
    ],
)
def test_wrong_settings_and_those_without_effect_are_refused(settings, words):
    with pytest.raises(ConfigError, match=words):
        PreferenceLossConfig(**settings)


def test_the_default_strength_is_each_paper_s():
    assert [config(name).strength for name in ("dpo", "ipo", "simpo", "kto", "orpo")] == [
        0.1,
        0.1,
        2.0,
        0.1,
        0.1,
    ]
    assert config("simpo", beta=3.0).strength == 3.0
