"""Exact identities of advantages and of policy losses on plain tensors, in float64."""

import copy
import itertools
import math

import pytest
import torch
from torch import Tensor

from shoestring.rl.advantage import advantages
from shoestring.rl.losses import Denominators, PolicyLossConfig, denominators, loss_mask, policy_loss

ADVANTAGES = ("grpo", "dr_grpo", "rloo")
KINDS = ("grpo", "dr_grpo", "dapo", "gspo")
MAX_TOKENS = 7
EVERYTHING = {"beta": 0.1, "off_policy_mask_threshold": 0.05, "negative_scale": 0.3}
every_kind = pytest.mark.parametrize("kind", KINDS)
every_advantage = pytest.mark.parametrize("kind", ADVANTAGES)
every_option = pytest.mark.parametrize("options", [{}, EVERYTHING], ids=["plain", "all-options"])


# Advantages ------------------------------------------------------------------------------------------------


def values(rewards_GX: Tensor, kind: str) -> Tensor:
    return advantages(rewards_GX, torch.ones_like(rewards_GX, dtype=torch.bool), kind).values_GX


@pytest.fixture
def rewards_GX() -> Tensor:
    return torch.rand(5, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@every_advantage
def test_a_permuted_group_has_permuted_advantages(rewards_GX, kind):
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    torch.testing.assert_close(values(rewards_GX[:, order], kind), values(rewards_GX, kind)[:, order])


@every_advantage
def test_a_shift_of_rewards_changes_nothing(rewards_GX, kind):
    torch.testing.assert_close(values(rewards_GX + 3, kind), values(rewards_GX, kind))


@every_advantage
def test_a_scale_of_rewards(rewards_GX, kind):
    factor = 1 if kind == "grpo" else 5
    torch.testing.assert_close(values(5 * rewards_GX, kind), factor * values(rewards_GX, kind))


@every_advantage
def test_groups_do_not_see_each_other(rewards_GX, kind):
    alone = torch.cat([values(group[None], kind) for group in rewards_GX])
    assert torch.equal(values(rewards_GX, kind), alone)


@every_advantage
def test_a_group_sums_to_zero(rewards_GX, kind):
    assert float(values(rewards_GX, kind).sum(1).abs().max()) < 1e-12


@every_advantage
def test_a_rejected_answer_is_as_if_never_sampled(rewards_GX, kind):
    valid_GX = torch.tensor([[True, False, True, True, False, True]]).expand(5, -1)
    result = advantages(torch.where(valid_GX, rewards_GX, torch.nan), valid_GX, kind)
    torch.testing.assert_close(
        result.values_GX[valid_GX].view(5, 4), values(rewards_GX[valid_GX].view(5, 4), kind)
    )
    assert not result.values_GX[~valid_GX].any()


def test_leave_one_out_is_n_over_n_minus_1_times_the_mean_baseline(rewards_GX):
    torch.testing.assert_close(values(rewards_GX, "rloo"), 6 / 5 * values(rewards_GX, "dr_grpo"))


def test_normalized_advantages_have_root_mean_square_one(rewards_GX):
    torch.testing.assert_close(
        values(rewards_GX, "grpo").square().mean(1), torch.ones(5, dtype=torch.float64)
    )


def test_deviation_weighs_problems_by_difficulty():
    """A group with a share p of right answers is weighed by 1 / sqrt(p (1 - p)): 0.9 over 0.5 is 5/3."""
    rewards_GX = torch.tensor([[1.0] * 5 + [0.0] * 5, [1.0] * 9 + [0.0]], dtype=torch.float64)
    weight_G = values(rewards_GX, "grpo")[:, 0] / values(rewards_GX, "dr_grpo")[:, 0]
    assert float(weight_G[1] / weight_G[0]) == pytest.approx(5 / 3, rel=1e-12)


@pytest.mark.parametrize(("kind", "factor"), [("rloo", 1.0), ("dr_grpo", 2 / 3)])
def test_expected_gradient_over_all_groups_of_three(kind, factor):
    """Leave-one-out gives the gradient of the expected reward, the mean baseline (n - 1)/n of it."""
    logits_W = torch.tensor([0.3, -0.2, 0.5, 0.0, -1.0], dtype=torch.float64, requires_grad=True)
    reward_W = torch.tensor([1.0, 0.0, 0.5, 2.0, -1.0], dtype=torch.float64)
    logp_W = logits_W.log_softmax(0)
    objective = torch.zeros((), dtype=torch.float64)
    for group in itertools.product(range(5), repeat=3):
        chance = logp_W.detach()[list(group)].sum().exp()
        if len(set(reward_W[list(group)].tolist())) > 1:
            advantage_B = values(reward_W[list(group)][None], kind)[0]
            objective = objective + chance * (advantage_B * logp_W[list(group)]).mean()
    (gradient,) = torch.autograd.grad(objective, logits_W, retain_graph=True)
    (exact,) = torch.autograd.grad((logp_W.exp() * reward_W).sum(), logits_W)
    torch.testing.assert_close(gradient, factor * exact)


# Losses on plain tensors -----------------------------------------------------------------------------------


class Batch:
    """Answers of lengths 1 to 6 with log-probabilities of three policies."""

    def __init__(self, rows: int = 8, spread: float = 0.3) -> None:
        generator = torch.Generator().manual_seed(1)
        lengths = torch.randint(1, 7, (rows,), generator=generator)
        self.mask = torch.arange(6)[None] < lengths[:, None]
        base, *noise = torch.randn(4, rows, 6, generator=generator, dtype=torch.float64)
        self.logp, self.old, self.ref = (base - 2 + spread * n for n in noise)
        self.advantages = torch.randn(rows, generator=generator, dtype=torch.float64)

    def rows(self, index) -> "Batch":
        part = copy.copy(self)
        part.logp, part.old, part.ref = self.logp[index], self.old[index], self.ref[index]
        part.advantages, part.mask = self.advantages[index], self.mask[index]
        return part

    def padded(self, columns: int, rows: int, filler: float = math.nan) -> "Batch":
        """With masked columns and rows that hold nonsense."""
        wider = copy.copy(self)
        pad = lambda x, value: torch.nn.functional.pad(x, (0, columns, 0, rows), value=value)  # noqa: E731
        wider.logp, wider.old, wider.ref = (pad(x, filler) for x in (self.logp, self.old, self.ref))
        wider.mask = pad(self.mask, False)
        wider.advantages = torch.nn.functional.pad(self.advantages, (0, rows), value=filler)
        return wider


def measured(batch: Batch, whole: Denominators | None = None, **options) -> tuple[dict[str, float], Tensor]:
    """All figures of the loss, and its gradient by logp (B, T)."""
    logp = batch.logp.clone().requires_grad_()
    whole = whole or denominators(batch.mask.sum(1).tolist(), MAX_TOKENS)
    result = policy_loss(
        logp,
        batch.old,
        batch.ref,
        batch.advantages,
        batch.mask,
        PolicyLossConfig(**options),
        denominators=whole,
    )
    result.loss.backward()
    figures = {name: float(getattr(result, name).detach()) for name in result.__slots__}
    return figures, logp.grad


def assert_same(one, other) -> None:
    assert one[0] == pytest.approx(other[0], rel=1e-6, abs=1e-12)
    torch.testing.assert_close(one[1], other[1], rtol=1e-12, atol=1e-15)


@every_option
@every_kind
@pytest.mark.parametrize("parts", [2, 4, 8])
def test_micro_batches_are_one_batch(kind, options, parts):
    batch = Batch()
    whole = denominators(batch.mask.sum(1).tolist(), MAX_TOKENS)
    pieces = [
        measured(batch.rows(rows), whole, loss_type=kind, **options) for rows in torch.arange(8).chunk(parts)
    ]
    summed = {name: sum(figures[name] for figures, _ in pieces) for name in pieces[0][0]}
    assert_same((summed, torch.cat([g for _, g in pieces])), measured(batch, loss_type=kind, **options))


@every_option
@every_kind
@pytest.mark.parametrize("size", [(3, 0), (0, 3), (2, 2)], ids=["columns", "rows", "both"])
def test_padding_and_masked_rows_change_nothing(kind, options, size):
    figures, gradient = measured(Batch().padded(*size), loss_type=kind, **options)
    assert not gradient[8:].any()
    assert not gradient[:, 6:].any()
    assert_same((figures, gradient[:8, :6]), measured(Batch(), loss_type=kind, **options))


@every_option
@every_kind
def test_order_of_answers_changes_nothing(kind, options):
    order = torch.tensor([5, 2, 7, 0, 1, 6, 3, 4])
    figures, gradient = measured(Batch(), loss_type=kind, **options)
    assert_same(measured(Batch().rows(order), loss_type=kind, **options), (figures, gradient[order]))


@every_option
@every_kind
def test_a_batch_twice_is_the_batch(kind, options):
    twice = Batch().rows(torch.arange(16) % 8)
    figures, gradient = measured(twice, loss_type=kind, **options)
    assert_same((figures, 2 * gradient[:8]), measured(Batch(), loss_type=kind, **options))


@every_kind
def test_on_policy_it_is_reinforce(kind):
    """At ratio 1 the gradient is minus advantage times the token's weight, and nothing is clipped."""
    figures, gradient = measured(Batch(spread=0.0), loss_type=kind)
    batch = Batch()
    length_B1 = batch.mask.sum(1, keepdim=True)
    weight = {"dapo": 1 / batch.mask.sum(), "dr_grpo": 1 / (8 * MAX_TOKENS)}.get(kind, 1 / (8 * length_B1))
    expected = -batch.advantages[:, None] * weight * batch.mask
    torch.testing.assert_close(gradient, expected.double(), rtol=1e-6, atol=0)
    assert figures["clip_share"] == figures["drift"] == 0


def test_gspo_is_grpo_on_policy():
    on_policy = Batch(spread=0.0)
    assert_same(measured(on_policy, loss_type="gspo"), measured(on_policy, loss_type="grpo"))
    assert measured(Batch(), loss_type="gspo")[0]["loss"] != measured(Batch(), loss_type="grpo")[0]["loss"]


@every_option
def test_gspo_is_grpo_for_answers_of_one_token(options):
    batch = Batch().padded(0, 0)
    batch.mask = batch.mask & (torch.arange(6) == 0)
    assert_same(measured(batch, loss_type="gspo", **options), measured(batch, loss_type="grpo", **options))


@every_option
def test_equal_lengths_make_token_and_answer_means_one(options):
    batch = Batch().padded(0, 0)
    batch.mask = torch.ones_like(batch.mask)
    assert_same(measured(batch, loss_type="grpo", **options), measured(batch, loss_type="dapo", **options))
    full = denominators(batch.mask.sum(1).tolist(), 6)  # as long as an answer may be
    assert_same(
        measured(batch, full, loss_type="grpo", **options),
        measured(batch, full, loss_type="dr_grpo", **options),
    )


@every_option
def test_dapo_is_dr_grpo_by_another_constant(options):
    tokens = int(Batch().mask.sum())
    (_, by_tokens), (_, by_constant) = (
        measured(Batch(), loss_type=k, **options) for k in ("dapo", "dr_grpo")
    )
    torch.testing.assert_close(by_tokens * tokens, by_constant * 8 * MAX_TOKENS)


@pytest.mark.parametrize(("kind", "ratio"), [("grpo", 3.0), ("gspo", 3.0), ("dr_grpo", 1.0), ("dapo", 1.0)])
def test_length_bias(kind, ratio):
    """Two equally bad answers of 2 and 6 tokens: how much harder the short one's tokens are punished."""
    batch = Batch(spread=0.0).rows(slice(2))
    batch.mask = torch.arange(6)[None] < torch.tensor([[2], [6]])
    batch.advantages = torch.tensor([-1.0, -1.0]).double()
    _, gradient = measured(batch, loss_type=kind)
    assert float(gradient[0, 0] / gradient[1, 0]) == pytest.approx(ratio, rel=1e-6)


@every_kind
@pytest.mark.parametrize(
    ("ratio", "advantage", "passes"),
    [
        (1.2499, 1, True),
        (1.2501, 1, False),
        (1.2501, -1, True),
        (0.8751, -1, True),
        (0.8749, -1, False),
        (0.8749, 1, True),
        (1.25, 1, True),  # the edge belongs to the inside
        (0.875, -1, True),
    ],
)
def test_clipping_at_the_edges(kind, ratio, advantage, passes):
    """Inside the range, or back toward it, the gradient is ratio x advantage; else there is none."""
    one = Batch().rows(slice(1))
    one.mask = torch.arange(6)[None] == 0
    one.logp, one.old = torch.full((1, 6), math.log(ratio)).double(), torch.zeros(1, 6).double()
    if ratio in (1.25, 0.875):  # exp(log(x)) may miss x by a rounding; step inside by one
        one.logp = torch.nextafter(one.logp, torch.zeros(1, 6).double())
        one.logp = torch.nextafter(one.logp, torch.zeros(1, 6).double())
    one.advantages = torch.tensor([float(advantage)]).double()
    figures, gradient = measured(one, Denominators(sequences=1, tokens=1, max_tokens=1), loss_type=kind,
                                 epsilon_low=0.125, epsilon_high=0.25)  # fmt: skip
    assert float(gradient[0, 0]) == pytest.approx(-ratio * advantage if passes else 0.0, rel=1e-6)
    assert figures["clip_share"] == (0 if passes else 1)


@every_kind
def test_off_policy_masking_takes_the_bad_and_distant_only(kind):
    """... out of the objective; the denominators and the KL term stay."""
    batch = Batch()
    moved_B = ((batch.old - batch.logp) * batch.mask).sum(1) / batch.mask.sum(1)
    dropped_B = (batch.advantages < 0) & (moved_B > 0.05)
    assert 0 < dropped_B.sum() < (batch.advantages < 0).sum()
    without = batch.padded(0, 0)
    without.advantages = torch.where(dropped_B, 0.0, batch.advantages)
    figures, gradient = measured(batch, loss_type=kind, beta=0.1, off_policy_mask_threshold=0.05)
    assert figures.pop("off_policy_share") == pytest.approx(float(dropped_B.float().mean()))
    expected, expected_gradient = measured(without, loss_type=kind, beta=0.1)
    expected.pop("off_policy_share")
    assert_same((figures, gradient), (expected, expected_gradient))


@every_kind
def test_negative_scale_is_a_factor_on_bad_answers(kind):
    batch = Batch()
    _, plain = measured(batch, loss_type=kind)
    _, scaled = measured(batch, loss_type=kind, negative_scale=0.25)
    factor_B1 = torch.where(batch.advantages < 0, 0.25, 1.0)[:, None]
    torch.testing.assert_close(scaled, plain * factor_B1)


@every_kind
def test_truncated_answers_are_as_if_never_sampled(kind):
    batch = Batch()
    truncated_B = torch.arange(8) >= 5
    batch.mask = loss_mask(
        batch.mask,
        valid_B=torch.ones(8, dtype=torch.bool),
        truncated_B=truncated_B,
        config=PolicyLossConfig(mask_truncated_completions=True),
    )
    figures, gradient = measured(batch, loss_type=kind, **EVERYTHING)
    assert not gradient[5:].any()
    assert_same((figures, gradient[:5]), measured(Batch().rows(slice(5)), loss_type=kind, **EVERYTHING))


@every_kind
def test_a_group_without_signal_moves_nothing_but_the_kl(kind):
    """Declared: with a KL term a group of equal rewards is still drawn to the reference."""
    batch = Batch()
    batch.advantages = values(torch.ones(2, 4).double(), "grpo").flatten()
    assert not measured(batch, loss_type=kind)[1].any()
    (_, one), (_, two) = (measured(batch, loss_type=kind, beta=w) for w in (0.1, 0.2))
    assert one.any()
    torch.testing.assert_close(2 * one, two)


@every_kind
@pytest.mark.parametrize("use_bias_correction_kl", [False, True])
def test_no_kl_at_the_reference(kind, use_bias_correction_kl):
    batch = Batch()
    batch.ref = batch.logp
    figures, gradient = measured(
        batch, loss_type=kind, beta=1.0, use_bias_correction_kl=use_bias_correction_kl
    )
    assert figures["kl"] == 0
    assert torch.equal(gradient, measured(batch, loss_type=kind)[1])
