"""Routing against brute force, and grouped experts against a plain loop."""

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from shoestring.kernels import Routing
from shoestring.model.config import MoEConfig
from shoestring.model.moe import Experts, MoE, Router, row_positions

D = 12
V3 = MoEConfig(
    n_routed_experts=16,
    n_shared_experts=1,
    num_experts_per_tok=4,
    moe_intermediate_size=20,
    n_group=4,
    topk_group=2,
    routed_scaling_factor=2.5,
)
GREEDY = replace(
    V3, scoring_func="softmax", topk_method="greedy", n_group=1, topk_group=1, norm_topk_prob=False
)
GROUPED = replace(GREEDY, topk_method="group_limited_greedy", n_group=4, topk_group=2)
METHODS = {
    "noaux": V3,
    "noaux-one-group": replace(V3, n_group=1, topk_group=1),
    "greedy": GREEDY,
    "groups": GROUPED,
}


def router(moe: MoEConfig) -> Router:
    torch.manual_seed(1)
    made = Router(moe, D)
    with torch.no_grad():
        made.weight.normal_(0, 0.5)
        if moe.topk_method == "noaux_tc":
            made.e_score_correction_bias.normal_(0, 0.3)
    return made


def best(scores: list[float], count: int) -> list[int]:
    return sorted(range(len(scores)), key=lambda i: -scores[i])[:count]


def brute_force(moe: MoEConfig, scores: list[float], bias: list[float]) -> set[int]:
    """One token's experts, as the papers say it in words."""
    choice = [s + b for s, b in zip(scores, bias, strict=True)]
    size = moe.n_routed_experts // moe.n_group
    allowed = set(range(moe.n_routed_experts))
    if moe.topk_method != "greedy":
        groups = [choice[g * size : (g + 1) * size] for g in range(moe.n_group)]
        values = [sum(sorted(g)[-2:]) if moe.topk_method == "noaux_tc" else max(g) for g in groups]
        chosen = best(values, moe.topk_group)
        allowed = {g * size + i for g in chosen for i in range(size)}
    return set(best([c if i in allowed else -1e9 for i, c in enumerate(choice)], moe.num_experts_per_tok))


@pytest.mark.parametrize("shift", [0.0, -3.0])  # lower by 3, every biased score is negative
@pytest.mark.parametrize("name", METHODS)
def test_the_choice_is_the_papers(name: str, shift: float) -> None:
    moe, gate, x_ND = METHODS[name], router(METHODS[name]), torch.randn(200, D)
    if moe.topk_method == "noaux_tc":
        gate.e_score_correction_bias += shift
    routing = gate(x_ND)
    logits = x_ND @ gate.weight.T
    scores = logits.softmax(-1) if moe.scoring_func == "softmax" else logits.sigmoid()
    torch.testing.assert_close(routing.scores_NE, scores)
    bias = getattr(gate, "e_score_correction_bias", torch.zeros(moe.n_routed_experts)).tolist()
    for token, chosen in enumerate(routing.experts_NK.tolist()):
        assert set(chosen) == brute_force(moe, routing.scores_NE[token].tolist(), bias)


@pytest.mark.parametrize("name", METHODS)
def test_gates_are_the_scores_of_the_chosen(name: str) -> None:
    moe = METHODS[name]
    routing = router(moe)(torch.randn(50, D))
    scores_NK = routing.scores_NE.gather(1, routing.experts_NK)
    if moe.norm_topk_prob:
        torch.testing.assert_close(routing.weights_NK.sum(-1), torch.full((50,), moe.routed_scaling_factor))
        scores_NK = scores_NK / scores_NK.sum(-1, keepdim=True)
    torch.testing.assert_close(routing.weights_NK, scores_NK * moe.routed_scaling_factor)


def test_the_bias_moves_the_choice_and_not_the_gate() -> None:
    moe = replace(V3, n_group=1, topk_group=1, norm_topk_prob=False)
    gate, x_ND = router(moe), torch.randn(80, D)
    gate.e_score_correction_bias.zero_()
    before = gate(x_ND)
    gate.e_score_correction_bias[3] = 5.0
    after = gate(x_ND)
    assert (after.experts_NK == 3).any(-1).all()
    assert not (before.experts_NK == 3).any(-1).all()
    wanted = after.scores_NE.gather(1, after.experts_NK) * moe.routed_scaling_factor
    torch.testing.assert_close(after.weights_NK, wanted)
    assert torch.equal(before.scores_NE, after.scores_NE)
    gate.e_score_correction_bias[3] = -5.0
    assert not (gate(x_ND).experts_NK == 3).any()


@pytest.mark.parametrize("name", ["noaux", "groups"])
def test_no_more_groups_than_allowed(name: str) -> None:
    groups_NK = router(METHODS[name])(torch.randn(300, D)).experts_NK // 4
    assert max(len(set(row)) for row in groups_NK.tolist()) == 2


@pytest.mark.parametrize("name", METHODS)
def test_the_router_learns_from_its_gates(name: str) -> None:
    gate, x_ND = router(METHODS[name]), torch.randn(9, D).bfloat16()
    routing = gate(x_ND)
    assert routing.weights_NK.dtype == torch.float32  # whatever the precision of the activations
    routing.weights_NK.square().sum().backward()
    assert gate.weight.grad.any()
    assert "e_score_correction_bias" not in dict(gate.named_parameters())


def routings(moe: MoEConfig, tokens: int, choice: str) -> Routing:
    """Who goes where, by hand: everybody to the same experts, or none to most, or at random."""
    count, copies = moe.n_routed_experts, moe.num_experts_per_tok
    if choice == "same":
        experts_NK = torch.arange(count - copies, count).expand(tokens, copies)
    elif choice == "first":
        experts_NK = torch.arange(copies).flip(0).expand(tokens, copies)
    else:
        experts_NK = torch.stack([torch.randperm(count)[:copies] for _ in range(tokens)])
    weights_NK = torch.randn(tokens, copies, requires_grad=True)
    return Routing(experts_NK.contiguous(), weights_NK, torch.rand(tokens, count))


@pytest.mark.parametrize("choice", ["same", "first", "random"])
@pytest.mark.parametrize(("tokens", "width", "hidden"), [(1, 20, 12), (17, 20, 12), (33, 7, 9), (5, 16, 32)])
def test_experts_are_a_loop_over_experts(tokens: int, width: int, hidden: int, choice: str) -> None:
    torch.manual_seed(0)
    moe = replace(V3, moe_intermediate_size=width)
    experts, x_ND = Experts(moe, hidden), torch.randn(tokens, hidden, requires_grad=True)
    for parameter in experts.parameters():
        torch.nn.init.normal_(parameter, 0, 0.3)
    routing = routings(moe, tokens, choice)
    plain = torch.zeros(tokens, hidden)
    for expert in range(moe.n_routed_experts):
        token, copy = (routing.experts_NK == expert).nonzero(as_tuple=True)
        gate, up = (x_ND[token] @ experts.gate_up_proj[expert].T).chunk(2, dim=-1)
        out = (F.silu(gate) * up) @ experts.down_proj[expert].T
        plain = plain.index_add(0, token, out * routing.weights_NK[token, copy, None])
    grouped = experts(x_ND, routing)
    torch.testing.assert_close(grouped, plain, rtol=1e-4, atol=1e-5)
    learned = [x_ND, routing.weights_NK, *experts.parameters()]
    upstream = torch.randn_like(plain)
    for ours, wanted in zip(
        *(torch.autograd.grad(y, learned, upstream) for y in (grouped, plain)), strict=True
    ):
        torch.testing.assert_close(ours, wanted, rtol=1e-4, atol=1e-4)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), tokens=st.integers(1, 30), copies=st.integers(1, 5), count=st.integers(5, 9))
def test_row_positions_sort_all_copies_by_expert(data: Any, tokens: int, copies: int, count: int) -> None:
    row = st.permutations(range(count)).map(lambda order: order[:copies])
    experts_NK = torch.tensor(data.draw(st.lists(row, min_size=tokens, max_size=tokens)))
    positions_NK = row_positions(experts_NK)
    assert positions_NK.shape == experts_NK.shape
    assert sorted(positions_NK.flatten().tolist()) == list(range(tokens * copies))
    by_row = torch.empty(tokens * copies, dtype=torch.int64)
    by_row[positions_NK.flatten()] = experts_NK.flatten()
    assert torch.equal(by_row, by_row.sort().values)
    for expert in range(count):  # stable: earlier tokens stand first
        rows = positions_NK[experts_NK == expert]
        assert torch.equal(rows, rows.sort().values)
    load = Routing(experts_NK, torch.ones(tokens, copies), torch.ones(tokens, count)).load_E()
    assert load.tolist() == [int((experts_NK == expert).sum()) for expert in range(count)]


@pytest.mark.parametrize("shared", [0, 2])
def test_shared_experts_see_every_token(shared: int) -> None:
    torch.manual_seed(0)
    layer = MoE(replace(V3, n_shared_experts=shared), D)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, 0, 0.3)
    x_BTD = torch.randn(2, 5, D)
    out_BTD, routing = layer(x_BTD)
    routed = layer.experts(x_BTD.flatten(0, 1), routing).view(2, 5, D)
    torch.testing.assert_close(out_BTD, routed + layer.shared_experts(x_BTD) if shared else routed)
    assert hasattr(layer, "shared_experts") == bool(shared)
