import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from shoestring.kernels import Routing
from shoestring.train.balance import expert_loads, max_violation, move_balance_bias, sequence_balance


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
    assert float(sequence_balance(routing, sequences)) / sequences == pytest.approx(expected, rel=1e-5)


@given(st.integers(0, 1000), st.lists(st.integers(1, 7), min_size=1, max_size=3), st.integers(2, 8))
def test_padding_counts_in_no_sequence(seed, lengths, experts):
    """The sum of the rows' own balance, each alone and without its padding."""
    generator = torch.Generator().manual_seed(seed)
    longest = max(lengths)
    scores = torch.rand(len(lengths) * longest, experts, generator=generator) + 0.01
    real_BT = torch.arange(longest) < torch.tensor(lengths)[:, None]
    rows = [part[:length] for part, length in zip(scores.split(longest), lengths, strict=True)]
    alone = [float(sequence_balance(routing_of(row, 1), 1)) for row in rows]
    together = routing_of(scores, 1)
    assert float(sequence_balance(together, len(lengths), real_BT)) == pytest.approx(sum(alone), rel=1e-5)
    loads = sum(expert_loads(routing_of(row, 1)) for row in rows)
    assert torch.equal(expert_loads(together, real_BT), loads)


@torch.no_grad()
def test_a_mask_without_padding_changes_nothing(tiny_model):
    features = tiny_model(3).features(torch.randint(0, 300, (4, 9)))
    real_BT = torch.ones(4, 9, dtype=torch.bool)
    for routing in features.routings.values():
        torch.testing.assert_close(sequence_balance(routing, 4, real_BT), sequence_balance(routing, 4))
        assert torch.equal(expert_loads(routing, real_BT), expert_loads(routing))


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
    (sequence_balance(Routing(experts, weights, scores), 2) / 2).backward()
    held = torch.zeros(2, 5).scatter_add_(1, experts.view(2, -1), torch.ones(2, 6)) * 5 / 6
    copy = scores.detach().clone().requires_grad_()
    shares = (copy / copy.sum(-1, keepdim=True)).view(2, 3, 5).mean(1)
    (held * shares).sum(-1).mean().backward()
    torch.testing.assert_close(scores.grad, copy.grad)


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
