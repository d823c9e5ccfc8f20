"""Whole layers in one call: to the last bit what the calls they replace give, row by row."""

import inspect
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from shoestring import kernels
from shoestring.kernels import cpu_fused, cpu_layers, cpu_paged, cpu_rows, ops, reference, reference_layers
from shoestring.kernels.layer_weights import (
    ExpertWeights,
    FeedForwardWeights,
    GroupedAttentionWeights,
    LatentAttentionWeights,
    MatrixWeights,
    NormWeights,
    RouterWeights,
)
from shoestring.kernels.packed import Bits, Packed, pack

D, H, P, R, V, C, S = 64, 4, 32, 8, 16, 64, 4
OPERATIONS = ("route", "latent_attention_layer", "grouped_attention_layer", "feed_forward_layer")
GREEDY = {"experts": 12, "groups": 1, "top_groups": 1, "softmax": True, "normalize": False}
V2 = GREEDY | {"groups": 4, "top_groups": 2}
V3 = V2 | {"softmax": False, "normalize": True}


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def norm(width: int) -> NormWeights:
    return NormWeights(1 + 0.1 * random(width, seed=width), 1e-6)


def packed(*shape: int, bits: Bits = 4, seed: int = 1) -> Packed:
    return pack(random(*shape, seed=seed) * shape[-1] ** -0.5, bits)


def matrix(outputs: int, depth: int, bits: Bits, bias: bool = False) -> MatrixWeights:
    weight = packed(outputs, depth, bits=bits, seed=outputs)
    return MatrixWeights(weight, random(outputs, seed=3) if bias else None)


def router(kind: dict[str, Any]) -> RouterWeights:
    bias = None if kind["softmax"] else 0.1 * random(kind["experts"], seed=9)
    return RouterWeights(random(kind["experts"], D, seed=8), bias, per_token=3, scaling=1.5, **kind)


def latent(bits: Bits, *, low_rank: bool) -> LatentAttentionWeights:
    return LatentAttentionWeights(
        norm=norm(D),
        q_a=matrix(32, D, bits, bias=True) if low_rank else None,
        q_norm=norm(32) if low_rank else None,
        q_b=matrix(H * (P + R), 32 if low_rank else D, bits),
        kv_a=matrix(C + R, D, bits, bias=True),
        kv_norm=norm(C),
        up_key=MatrixWeights(packed(H, C, P, bits=bits)),
        up_value=MatrixWeights(packed(H, V, C, bits=bits)),
        out=matrix(D, H * V, bits),
        scale=0.2,
    )


def grouped(bits: Bits, *, bias: bool, norms: bool = False) -> GroupedAttentionWeights:
    q, kv = matrix(4 * 16, D, bits, bias), matrix(2 * 16, D, bits, bias)
    of_heads = (norm(16), replace(norm(16), eps=1e-3)) if norms else (None, None)
    return GroupedAttentionWeights(
        norm(D), q, kv, replace(kv), matrix(D, 64, bits, bias), *of_heads, 16, 0.25
    )


def feed_forward(bits: Bits, kind: dict[str, Any] | None, *, shared: bool) -> FeedForwardWeights:
    def experts(count: int, width: int) -> ExpertWeights:
        down = packed(count, D, width, bits=bits, seed=2)
        return ExpertWeights(packed(count, 2 * width, D, bits=bits), down)

    routed = None if kind is None else experts(kind["experts"], 32)
    chosen = None if kind is None else router(kind)
    return FeedForwardWeights(norm(D), D, chosen, routed, experts(1, 96) if shared else None)


@dataclass
class Rows:
    slot_N: Tensor
    tables_BU: Tensor
    sequence_N: Tensor
    lengths_N: Tensor
    positions_N: Tensor

    def part(self, which: slice) -> "Rows":
        names = ("slot_N", "sequence_N", "lengths_N", "positions_N")
        return replace(self, **{name: getattr(self, name)[which] for name in names})


def rows(count: int) -> Rows:
    """The newest `count` rows of two sequences: the second has one if there are more, the first the rest."""
    lengths = (max(1, count - 1) + 5, 9)
    counts = (max(1, count - 1), min(1, count - 1))
    per = -(-max(lengths) // S)
    tables = torch.randperm(2 * per, generator=torch.Generator().manual_seed(1)).view(2, per).to(torch.int32)
    owner = torch.tensor([0] * counts[0] + [1] * counts[1])
    place = torch.tensor([*range(lengths[0] - counts[0], lengths[0]), *range(9 - counts[1], 9)])
    slot = tables[owner, place // S].long() * S + place % S
    return Rows(slot, tables, owner.int(), (place + 1).int(), place)


def pages(index: Rows, *shape: int, seed: int) -> Tensor:
    return random(index.tables_BU.numel(), S, *shape, seed=seed)


def angles(index: Rows, width: int) -> tuple[Tensor, Tensor]:
    turned = index.positions_N[:, None] * (0.3 ** torch.arange(width // 2))
    return turned.cos(), turned.sin()


@pytest.fixture
def composed(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The specification composed of CPU twins instead of plain PyTorch."""
    names = {name for name, f in inspect.getmembers(reference_layers, inspect.isfunction)}
    for room in (cpu_fused, cpu_layers, cpu_paged, cpu_rows):
        for name in names & set(dir(room)):
            if name not in OPERATIONS or name == "route":
                monkeypatch.setattr(reference_layers, name, getattr(room, name))
    with torch.inference_mode():
        yield reference_layers


def attention_cases(bits: Bits) -> list[tuple[str, Any, tuple[tuple[int, ...], tuple[int, ...]], int]]:
    """Operation, weights, what is kept per token, how wide the rotation is."""
    return [
        ("latent_attention_layer", latent(bits, low_rank=True), ((C,), (R,)), R),
        ("latent_attention_layer", latent(bits, low_rank=False), ((C,), (R,)), R),
        ("grouped_attention_layer", grouped(bits, bias=True), ((2, 16), (2, 16)), 16),
        ("grouped_attention_layer", grouped(bits, bias=False), ((2, 16), (2, 16)), 16),
        ("grouped_attention_layer", grouped(bits, bias=False, norms=True), ((2, 16), (2, 16)), 16),
    ]


@pytest.mark.parametrize("count", [1, 2, 17, 600])
@pytest.mark.parametrize("bits", [4, 8, 32])
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("interleave", [True, False])
def test_attention_is_the_calls_it_replaces(
    composed: Any, bits: Bits, count: int, threads: int, interleave: bool
) -> None:
    index, x = rows(count), random(count, D)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for op, weights, shapes, width in attention_cases(bits):
            ours, theirs = ([pages(index, *s, seed=i) for i, s in enumerate(shapes)] for _ in range(2))
            turns = (*angles(index, width), interleave)
            got = getattr(cpu_layers, op)(x, weights, *ours, index, *turns)
            assert torch.equal(got, getattr(composed, op)(x, weights, *theirs, index, *turns))
            assert all(map(torch.equal, ours, theirs))
            assert not torch.equal(ours[0], pages(index, *shapes[0], seed=0))
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("bits", [4, 8, 32])
def test_attention_follows_the_specification(bits: Bits) -> None:
    index, x = rows(9), random(9, D)
    for op, weights, shapes, width in attention_cases(bits):
        ours, theirs = ([pages(index, *s, seed=i) for i, s in enumerate(shapes)] for _ in range(2))
        turns = (*angles(index, width), True)
        got = getattr(cpu_layers, op)(x, weights, *ours, index, *turns)
        expected = getattr(reference_layers, op)(x, weights, *theirs, index, *turns)
        assert (got - expected).norm() < {4: 3e-2, 8: 2e-4, 32: 1e-6}[bits] * (expected - x).norm()


def test_a_row_of_attention_does_not_depend_on_the_others() -> None:
    index, x = rows(40), random(40, D)
    for op, weights, shapes, width in attention_cases(4):
        kept = [pages(index, *s, seed=i) for i, s in enumerate(shapes)]
        turns = angles(index, width)
        whole = getattr(cpu_layers, op)(x, weights, *kept, index, *turns, True)
        for which in (slice(0, 1), slice(7, 12), slice(38, 40), slice(39, 40)):
            part = [angle[which].contiguous() for angle in turns]
            alone = getattr(cpu_layers, op)(x[which], weights, *kept, index.part(which), *part, True)
            assert torch.equal(alone, whole[which])


FEED_FORWARDS = [(None, True), (GREEDY, True), (GREEDY, False), (V2, True), (V3, True)]


@pytest.mark.parametrize("count", [1, 2, 17, 600])
@pytest.mark.parametrize("bits", [4, 8, 32])
@pytest.mark.parametrize(("kind", "shared"), FEED_FORWARDS)
def test_a_feed_forward_is_the_calls_it_replaces(
    composed: Any, bits: Bits, count: int, kind: dict[str, Any] | None, shared: bool
) -> None:
    x, weights = random(count, D), feed_forward(bits, kind, shared=shared)
    got, expected = cpu_layers.feed_forward_layer(x, weights), composed.feed_forward_layer(x, weights)
    assert torch.equal(got.hidden_ND, expected.hidden_ND)
    alone = cpu_layers.feed_forward_layer(x[-1:], weights)
    assert torch.equal(alone.hidden_ND, got.hidden_ND[-1:])
    if kind is None:
        assert got.routing is None
        assert expected.routing is None
    else:
        for name in ("experts_NK", "weights_NK", "scores_NE"):
            assert torch.equal(getattr(got.routing, name), getattr(expected.routing, name))
            assert torch.equal(getattr(alone.routing, name), getattr(got.routing, name)[-1:])


RULES = [
    {"experts": 12, "groups": groups, "top_groups": top, "softmax": softmax, "normalize": normalize}
    for groups, top in ((1, 1), (4, 2), (4, 4), (12, 12))
    for softmax in (True, False)
    for normalize in (True, False)
]
LARGE = V3 | {"experts": 256, "groups": 8, "top_groups": 4}


@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("kind", [*RULES, LARGE])
@pytest.mark.parametrize("count", [0, 1, 600])
@pytest.mark.parametrize("ties", [False, True])
def test_routing_has_the_bits_of_the_specification(
    kind: dict[str, Any], biased: bool, count: int, ties: bool
) -> None:
    logits, weights = 3 * random(count, kind["experts"]), router(kind)
    bias = 0.1 * random(kind["experts"], seed=9) if biased else None
    if ties:  # four different values in each row and two biases: most choices are between equals
        logits, bias = (logits / 4).round(), None if bias is None else (bias * 10).sign() / 8
    weights = replace(weights, bias_E=bias)
    with torch.no_grad():
        got, expected = cpu_layers.route(logits, weights), reference.route(logits, weights)
        same = cpu_layers.route(logits, weights, expected.experts_NK)
    for name in ("experts_NK", "weights_NK", "scores_NE"):
        assert torch.equal(getattr(got, name), getattr(expected, name))
        assert torch.equal(getattr(same, name), getattr(expected, name))


def test_of_equal_experts_the_first_are_chosen() -> None:
    equal = torch.zeros(2, 12)
    assert cpu_layers.route(equal, router(GREEDY)).experts_NK.tolist() == [[0, 1, 2]] * 2
    unbiased = replace(router(V3), bias_E=torch.zeros(12))
    assert cpu_layers.route(equal, unbiased).experts_NK.tolist() == [[0, 1, 2]] * 2
    negative = replace(
        router(V3), bias_E=torch.full((12,), -5.0)
    )  # experts out of bounds must lose all the same
    assert cpu_layers.route(equal, negative).experts_NK.tolist() == [[0, 1, 2]] * 2


@pytest.mark.parametrize("kind", [GREEDY, V2, V3])
@pytest.mark.parametrize("poison", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_shows_and_stays_in_bounds(kind: dict[str, Any], poison: float) -> None:
    logits = random(3, 12)
    logits[1, 5] = poison
    clean, got = cpu_layers.route(random(3, 12), router(kind)), cpu_layers.route(logits, router(kind))
    assert int(got.experts_NK.min()) >= 0
    assert int(got.experts_NK.max()) < 12
    assert torch.equal(got.weights_NK[0], clean.weights_NK[0])
    assert torch.equal(got.weights_NK[2], clean.weights_NK[2])
    if poison != poison:
        assert got.weights_NK[1].isnan().any()
    logits[1] = poison
    assert 0 <= int(cpu_layers.route(logits, router(kind)).experts_NK.min()) < 12


@pytest.mark.parametrize("op", OPERATIONS)
def test_every_operation_is_public(op: str) -> None:
    public = inspect.signature(getattr(ops, op))
    assert getattr(kernels, op) is getattr(ops, op)
    for room in (reference_layers, cpu_layers):
        assert inspect.signature(getattr(room, op)) == public
    own = [
        n
        for n, f in inspect.getmembers(cpu_layers, inspect.isfunction)
        if f.__module__ == cpu_layers.__name__
    ]
    assert {name for name in own if not name.startswith("_")} == set(OPERATIONS)


def test_one_call_is_for_inference_in_float32_on_a_cpu() -> None:
    x = torch.zeros(1, 1)
    for op in OPERATIONS:
        assert not ops.in_one_call(op, x)
        with torch.inference_mode():
            assert ops.in_one_call(op, x)
            assert not ops.in_one_call(op, x.bfloat16())
            assert not ops.in_one_call(op, x.to("meta"))
    with torch.no_grad():
        weights = feed_forward(4, V3, shared=True)
        got = kernels.feed_forward_layer(random(3, D), weights).hidden_ND
    assert torch.equal(got, cpu_layers.feed_forward_layer(random(3, D), weights).hidden_ND)
