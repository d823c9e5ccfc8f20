"""Policy losses against a plain loop over tokens, and what they refuse."""

import math
from dataclasses import replace

import pytest
import torch

from shoestring.errors import ConfigError, NonFiniteError
from shoestring.rl.losses import Denominators, PolicyLossConfig, denominators, k3, loss_mask, policy_loss

LENGTHS = (4, 1, 3, 0, 6)
MAX_TOKENS = 8


@pytest.fixture
def case():
    """logp, old, ref (B, T), advantages and mask, with NaN where no token is."""
    generator = torch.Generator().manual_seed(4)
    mask_BT = torch.arange(6)[None] < torch.tensor(LENGTHS)[:, None]
    logps = torch.randn(3, len(LENGTHS), 6, generator=generator, dtype=torch.float64) * 0.4 - 1.0
    logps[:, ~mask_BT] = math.nan
    advantages_B = torch.tensor([1.0, -0.5, -1.5, 2.0, 0.7]).double()
    return (*logps, advantages_B, mask_BT)


def by_hand(case, config: PolicyLossConfig) -> dict[str, float]:
    """The papers' formulas, one token at a time."""
    rows = []
    for new, old, ref, advantage, mask in zip(*case, strict=True):
        length = int(mask.sum())
        if length:
            rows.append(([t[:length].tolist() for t in (new, old, ref)], float(advantage)))
    tokens, loss, clipped, kl, drift, left_out = sum(LENGTHS), 0.0, 0, 0.0, 0.0, 0
    for (new, old, ref), advantage in rows:
        length = len(new)
        weight = {
            "grpo": 1 / length / len(rows),
            "gspo": 1 / length / len(rows),
            "dr_grpo": 1 / MAX_TOKENS / len(rows),
            "dapo": 1 / tokens,
        }[config.loss_type]
        mean_gap = sum(n - o for n, o in zip(new, old, strict=True)) / length
        drop = (
            config.off_policy_mask_threshold is not None
            and advantage < 0
            and -mean_gap > config.off_policy_mask_threshold
        )
        left_out += drop
        scaled = 0.0 if drop else advantage * (config.negative_scale if advantage < 0 else 1.0)
        for n, o, r in zip(new, old, ref, strict=True):
            ratio = math.exp(mean_gap if config.loss_type == "gspo" else n - o)
            bounded = min(max(ratio, 1 - config.epsilon_low), 1 + config.epsilon_high)
            gain = min(ratio * scaled, bounded * scaled)
            clipped += gain < ratio * scaled
            estimate = math.exp(r - n) - (r - n) - 1
            estimate *= math.exp(n - o) if config.use_bias_correction_kl else 1.0
            loss += weight * (config.beta * estimate - gain)
            kl += estimate / tokens
            drift += (math.exp(n - o) - (n - o) - 1) / tokens
    return {
        "loss": loss,
        "clip_share": clipped / tokens,
        "kl": kl,
        "drift": drift,
        "off_policy_share": left_out / len(rows),
    }


@pytest.mark.parametrize("kind", ["grpo", "dr_grpo", "dapo", "gspo"])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"beta": 0.1},
        {"beta": 0.1, "use_bias_correction_kl": False},
        {"off_policy_mask_threshold": 0.05, "negative_scale": 0.3, "beta": 0.01},
        {"epsilon_low": 0.01, "epsilon_high": 0.05},
        {"epsilon_low": 10.0, "epsilon_high": 10.0},  # R1's second stage
    ],
)
def test_as_by_hand(case, kind, changes):
    config = PolicyLossConfig(loss_type=kind, **changes)
    result = policy_loss(*case, config, denominators=denominators(case[-1].sum(1).tolist(), MAX_TOKENS))
    assert {name: float(getattr(result, name)) for name in by_hand(case, config)} == pytest.approx(
        by_hand(case, config), rel=1e-6
    )


def test_options_do_something(case):
    """Otherwise the comparison above would compare nothing."""
    plain = PolicyLossConfig()
    changed = [
        {"epsilon_high": 0.05},
        {"beta": 0.1},
        {"off_policy_mask_threshold": 0.05},
        {"negative_scale": 0.3},
    ]
    losses = [by_hand(case, replace(plain, **c))["loss"] for c in ({}, *changed)]
    assert len({round(loss, 9) for loss in losses}) == len(losses)


def test_denominators_of_parts_of_different_width():
    masks = [torch.tensor([[True, False], [False, False]]), torch.ones(1, 5, dtype=torch.bool)]
    assert denominators((length for mask in masks for length in mask.sum(1).tolist()), 9) == Denominators(
        sequences=2, tokens=6, max_tokens=9
    )
    assert denominators([], 9).sequences == 0


@pytest.mark.parametrize("mask_truncated", [False, True])
def test_loss_mask(mask_truncated):
    mask_BT = torch.tensor([[True, True], [True, False], [True, True]])
    mask = loss_mask(
        mask_BT,
        valid_B=torch.tensor([True, False, True]),
        truncated_B=torch.tensor([False, False, True]),
        config=PolicyLossConfig(mask_truncated_completions=mask_truncated),
    )
    assert mask.tolist() == [[True, True], [False, False], [not mask_truncated] * 2]


@pytest.mark.parametrize("position", [0, 1, 2])
def test_a_nan_that_counts_is_refused(case, position):
    case[position][0, 0] = math.nan
    with pytest.raises(NonFiniteError, match="where an answer is"):
        policy_loss(
            *case, PolicyLossConfig(), denominators=denominators(case[-1].sum(1).tolist(), MAX_TOKENS)
        )


def test_kl_without_a_reference_is_refused(case):
    logp, old, _, advantages_B, mask_BT = case
    config = PolicyLossConfig(beta=0.1)
    with pytest.raises(ConfigError, match="reference"):
        policy_loss(
            logp,
            old,
            None,
            advantages_B,
            mask_BT,
            config,
            denominators=denominators(mask_BT.sum(1).tolist(), MAX_TOKENS),
        )


def test_a_huge_ratio_has_a_finite_gradient():
    logp_BT = torch.tensor([[-1.0], [-1.0]], requires_grad=True)
    old_BT, mask_BT = torch.tensor([[-400.0], [-400.0]]), torch.ones(2, 1, dtype=torch.bool)
    result = policy_loss(
        logp_BT,
        old_BT,
        old_BT,
        torch.tensor([1.0, -1.0]),
        mask_BT,
        PolicyLossConfig(beta=0.1),
        denominators=denominators(mask_BT.sum(1).tolist(), 1),
    )
    result.loss.backward()
    assert torch.isfinite(logp_BT.grad).all()
    assert float(k3(torch.tensor(-400.0), torch.tensor(-1.0))) < float("inf")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"loss_type": "ppo"}, "'ppo' is none of grpo, dr_grpo, dapo, gspo"),
        ({"epsilon_low": 0.0}, "epsilon_low = 0.0"),
        ({"epsilon_high": math.nan}, "epsilon_high = nan"),
        ({"beta": -1.0}, "beta = -1.0"),
        ({"negative_scale": math.inf}, "negative_scale = inf"),
        ({"off_policy_mask_threshold": -0.5}, "off_policy_mask_threshold = -0.5"),
    ],
)
def test_wrong_settings(changes, words):
    with pytest.raises(ConfigError, match=words):
        PolicyLossConfig(**changes)
