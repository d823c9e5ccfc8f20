import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from shoestring.model.moe import Routing
from shoestring.train.losses import (
    max_violation,
    move_balance_bias,
    next_token_losses,
    sequence_balance,
    shift_left,
)


def rows(count: int, length: int = 12, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.randint(0, 300, (count, length + 1), generator=torch.Generator().manual_seed(seed))
    return ids[:, :-1], ids[:, 1:].contiguous()


def losses_and_gradients(model, inputs, targets, *, parts=1, alpha=0.01):
    """Totals over `parts` micro-batches, and the summed gradient of every parameter."""
    model.zero_grad()
    total = torch.zeros(3, dtype=torch.float64)
    for some, aims in zip(inputs.chunk(parts), targets.chunk(parts), strict=True):
        losses = next_token_losses(model, some, aims, mtp_weight=0.3, balance_alpha=alpha, whole_BT=targets)
        losses.total.backward()
        total += torch.stack((losses.total.detach(), losses.nll, losses.mtp_nll)).double()
    return total, {name: p.grad.clone() for name, p in model.named_parameters()}


def assert_same(one, other, tolerance=1e-6):
    torch.testing.assert_close(one[0], other[0], rtol=tolerance, atol=tolerance)
    for name, gradient in one[1].items():
        torch.testing.assert_close(gradient, other[1][name], rtol=1e-4, atol=tolerance, msg=name)


def slow_losses(model, inputs, targets, depths):
    """V3 eq. 22-25 token by token, with torch's own cross-entropy and explicit logits."""
    hidden = model.features(inputs).hidden_BTD
    means = [F.cross_entropy(model.logits(hidden).flatten(0, 1), targets.flatten(), ignore_index=-1)]
    for depth in range(1, depths + 1):
        ahead, aims = torch.zeros_like(inputs), torch.full_like(targets, -1)
        for t in range(inputs.shape[1]):
            if t + depth - 1 < inputs.shape[1]:
                ahead[:, t] = targets[:, t + depth - 1].clamp(min=0)
            if t + depth < inputs.shape[1]:
                aims[:, t] = targets[:, t + depth]
        hidden = model.mtp_features(hidden, ahead, depth - 1).hidden_BTD
        means.append(F.cross_entropy(model.logits(hidden).flatten(0, 1), aims.flatten(), ignore_index=-1))
    return means[0], sum(means[1:]) / depths


@pytest.mark.parametrize("depths", [1, 2])
def test_the_losses_equal_a_slow_computation(tiny_model, depths):
    model = tiny_model(num_nextn_predict_layers=depths)
    inputs, targets = rows(3)
    targets[0, 4:7] = -1
    nll, mtp = slow_losses(model, inputs, targets, depths)
    (nll + 0.3 * mtp).backward()
    slow = (torch.stack((nll + 0.3 * mtp, nll, mtp)).detach().double(), {})
    slow[1].update({name: p.grad.clone() for name, p in model.named_parameters()})
    assert_same(losses_and_gradients(model, inputs, targets, alpha=0.0), slow, tolerance=2e-6)


def test_without_mtp_modules_there_is_no_mtp_loss(tiny_model):
    model = tiny_model(num_nextn_predict_layers=0)
    losses = next_token_losses(model, *rows(2), mtp_weight=0.3, balance_alpha=0.0)
    assert float(losses.mtp_nll) == 0.0
    assert torch.equal(losses.total.detach(), losses.nll)


@pytest.mark.parametrize("parts", [2, 3, 6])
def test_micro_batches_equal_one_batch(tiny_model, parts):
    """Masks differ from row to row, so a mean of the parts' own means would be wrong."""
    model = tiny_model()
    inputs, targets = rows(6)
    targets[0, :] = -1
    targets[1, 3:] = -1
    targets[4, ::2] = -1
    whole = losses_and_gradients(model, inputs, targets)
    assert_same(losses_and_gradients(model, inputs, targets, parts=parts), whole)


def test_the_order_of_rows_does_not_matter(tiny_model):
    model = tiny_model()
    inputs, targets = rows(5)
    order = torch.tensor([3, 0, 4, 2, 1])
    here = losses_and_gradients(model, inputs, targets)
    assert_same(losses_and_gradients(model, inputs[order], targets[order]), here)


@pytest.mark.parametrize("nothing", [-1, -100])
def test_a_row_without_targets_changes_nothing(tiny_model, nothing):
    """But for the balance loss, which is about every row that is routed."""
    model = tiny_model()
    inputs, targets = rows(3)
    here = losses_and_gradients(model, inputs, targets, alpha=0.0)
    more = torch.cat((inputs, rows(1, seed=9)[0])), torch.cat((targets, torch.full((1, 12), nothing)))
    assert_same(losses_and_gradients(model, *more, alpha=0.0), here)


def test_nothing_to_predict_is_zero_and_not_a_division(tiny_model):
    inputs, targets = rows(2)
    totals, gradients = losses_and_gradients(tiny_model(), inputs, torch.full_like(targets, -1), alpha=0.0)
    assert totals.tolist() == [0.0, 0.0, 0.0]
    assert not any(gradient.abs().max() for gradient in gradients.values())


def test_loads_count_every_routed_row(tiny_model):
    losses = next_token_losses(tiny_model(), *rows(3), mtp_weight=0.3, balance_alpha=0.0)
    assert sorted(losses.loads) == [1, 2]  # layer 0 is dense; layer 2 is the MTP module
    assert all(int(load.sum()) == 3 * 12 * 2 for load in losses.loads.values())


@given(st.integers(1, 4), st.integers(1, 9), st.integers(0, 12))
def test_shift_left(count, length, by):
    ids = torch.arange(count * length).view(count, length)
    shifted = shift_left(ids, by)
    assert shifted.shape == ids.shape
    for t in range(length):
        expected = ids[:, t + by] if t + by < length else torch.full((count,), -1)
        assert torch.equal(shifted[:, t], expected)


def routing_of(scores_NE: torch.Tensor, per_token: int) -> Routing:
    experts = scores_NE.topk(per_token, dim=-1).indices
    return Routing(experts, scores_NE.gather(1, experts), scores_NE)


def naive_balance(routing: Routing, sequences: int, per_token: int) -> float:
    """V3 eq. 17-20, in its own letters: s, f, P, N_r, K_r, T."""
    s = routing.scores_NE.unflatten(0, (sequences, -1)).tolist()
    chosen = routing.experts_NK.unflatten(0, (sequences, -1)).tolist()
    total = 0.0
    for scores, picks in zip(s, chosen, strict=True):
        T, N_r = len(scores), len(scores[0])
        for i in range(N_r):
            f_i = N_r / (per_token * T) * sum(i in pick for pick in picks)
            P_i = sum(row[i] / sum(row) for row in scores) / T
            total += f_i * P_i
    return total / sequences


@given(st.integers(0, 1000), st.integers(1, 3), st.integers(1, 7), st.integers(2, 8), st.data())
def test_sequence_balance_is_the_papers_formula(seed, sequences, length, experts, data):
    per_token = data.draw(st.integers(1, experts))
    generator = torch.Generator().manual_seed(seed)
    routing = routing_of(torch.rand(sequences * length, experts, generator=generator) + 0.01, per_token)
    expected = naive_balance(routing, sequences, per_token)
    assert float(sequence_balance(routing, sequences)) == pytest.approx(expected, rel=1e-5)


def test_sequence_balance_is_one_when_balanced_and_more_when_not():
    even = torch.full((4, 4), 0.5)
    level = Routing(torch.tensor([[0, 1], [2, 3], [1, 0], [3, 2]]), torch.ones(4, 2), even)
    assert float(sequence_balance(level, 1)) == pytest.approx(1.0)
    same = Routing(torch.tensor([[0, 1]] * 4), torch.ones(4, 2), torch.tensor([[0.9, 0.9, 0.1, 0.1]] * 4))
    assert float(sequence_balance(same, 1)) == pytest.approx(1.8)


def test_its_gradient_flows_through_affinities_only():
    """Counts are integers: what is left is the gradient of sum_i f_i P_i with every f_i held."""
    scores = (torch.rand(6, 5, generator=torch.Generator().manual_seed(3)) + 0.1).requires_grad_()
    experts = scores.detach().topk(2, dim=-1).indices
    weights = scores.gather(1, experts)
    sequence_balance(Routing(experts, weights, scores), 2).backward()
    held = torch.zeros(2, 5).scatter_add_(1, experts.view(2, -1), torch.ones(2, 6)) * 5 / 6
    copy = scores.detach().clone().requires_grad_()
    shares = (copy / copy.sum(-1, keepdim=True)).view(2, 3, 5).mean(1)
    (held * shares).sum(-1).mean().backward()
    torch.testing.assert_close(scores.grad, copy.grad)


def test_the_balance_loss_moves_the_router_of_every_moe_layer(tiny_model):
    """Beside what the likelihood does: the difference is alpha times the balance loss's own gradient."""
    model = tiny_model()
    one, two = (losses_and_gradients(model, *rows(3), alpha=alpha)[1] for alpha in (0.0, 1.0))
    changed = {name for name in one if not torch.allclose(one[name], two[name], atol=1e-6)}
    assert {f"model.layers.{index}.mlp.gate.weight" for index in (1, 2)} <= changed
    assert not [name for name in changed if "layers.2.mlp.experts" in name or "lm_head" in name]


def test_each_bias_moves_by_the_speed_toward_balance(tiny_model):
    model = tiny_model()
    bias = model.model.layers[1].mlp.gate.e_score_correction_bias
    bias.copy_(torch.linspace(-0.5, 0.5, 8))
    before = bias.clone()
    load = torch.tensor([0, 4, 4, 4, 5, 3, 8, 4])
    move_balance_bias(model, {1: load}, 0.001)
    assert torch.equal(bias, before + 0.001 * torch.tensor([1.0, 0, 0, 0, -1, 1, -1, 0]))
    assert not model.model.layers[2].mlp.gate.e_score_correction_bias.any()
    move_balance_bias(model, {1: load}, 0.0)
    assert torch.equal(bias, before + 0.001 * torch.tensor([1.0, 0, 0, 0, -1, 1, -1, 0]))


def test_the_mean_load_is_exact_however_many_rows_there_are(tiny_model):
    """In float32 such loads are no longer whole numbers, and equal ones would drift."""
    model = tiny_model()
    load = torch.full((8,), 2**24 + 1)
    move_balance_bias(model, {1: load}, 0.001)
    assert not model.model.layers[1].mlp.gate.e_score_correction_bias.any()
    load[0] += 1
    move_balance_bias(model, {1: load}, 0.001)
    assert (
        model.model.layers[1].mlp.gate.e_score_correction_bias.sign() == torch.tensor([-1] + [1] * 7)
    ).all()


def test_the_bias_moves_the_choice_and_never_the_gates(tiny_model):
    gate = tiny_model().model.layers[1].mlp.gate
    x = torch.randn(64, 32, generator=torch.Generator().manual_seed(1))
    before = gate(x)
    gate.e_score_correction_bias[:4] += 10.0
    after = gate(x)
    assert (after.experts_NK < 4).all()
    assert (before.experts_NK >= 4).any()
    assert torch.equal(before.scores_NE, after.scores_NE)
    chosen = after.scores_NE.gather(1, after.experts_NK)
    torch.testing.assert_close(after.weights_NK, chosen / chosen.sum(-1, keepdim=True))


def test_a_router_without_bias_is_left_alone(tiny_model, tiny_shape):
    from dataclasses import replace

    moe = replace(tiny_shape.moe, topk_method="greedy", scoring_func="softmax")
    model = tiny_model(moe=moe)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    move_balance_bias(model, {1: torch.tensor([9] + [1] * 7)}, 0.001)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(
    ("load", "violation"),
    [([4, 4, 4, 4], 0.0), ([16, 0, 0, 0], 3.0), ([5, 4, 4, 3], 0.25), ([0, 0], 0.0)],
)
def test_max_violation(load, violation):
    assert max_violation(torch.tensor(load)) == violation
