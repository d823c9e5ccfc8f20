"""Products with experts on the GPU, interpreted: equal to the specification, empty experts and all."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from shoestring.kernels import reference, triton_grouped
from shoestring.kernels.packed import Bits, pack

Run = Callable[..., Any]
BITS = pytest.mark.parametrize("bits", [4, 8])


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def ends_of(counts: list[int]) -> Tensor:
    return torch.tensor(counts).cumsum(0).to(torch.int32)


@pytest.mark.parametrize(
    ("counts", "outputs", "depth"),
    [
        ([1], 5, 7),
        ([0, 3, 0, 0, 20, 1, 0], 70, 130),
        ([90, 0, 75], 33, 64),
        ([0, 0, 16, 32], 64, 32),
        ([0, 0], 8, 8),
    ],
)
def test_grouped_linear(interpreted: Run, counts: list[int], outputs: int, depth: int) -> None:
    x, weight = random(sum(counts), depth), random(len(counts), outputs, depth, seed=1)
    got = interpreted(triton_grouped.grouped_linear, x, weight, ends_of(counts))
    wanted = reference.grouped_linear(x.double(), weight.double(), ends_of(counts))
    torch.testing.assert_close(got.double(), wanted, rtol=0, atol=3e-5)


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(counts=st.lists(st.sampled_from([0, 0, 1, 2, 15, 16, 17, 33]), min_size=1, max_size=9))
def test_every_row_meets_its_own_expert(interpreted: Run, counts: list[int]) -> None:
    x = torch.ones(sum(counts), 1)
    weight = torch.arange(1.0, len(counts) + 1)[:, None, None]
    got = interpreted(triton_grouped.grouped_linear, x, weight, ends_of(counts))
    expected = [float(expert + 1) for expert, count in enumerate(counts) for _ in range(count)]
    assert got[:, 0].tolist() == expected


def test_float32_weights_serve_half_precision_rows(interpreted: Run) -> None:
    x, weight, ends = random(9, 40).half(), random(3, 24, 40, seed=1), ends_of([2, 0, 7])
    got = interpreted(triton_grouped.grouped_linear, x, weight, ends)
    wanted = reference.grouped_linear(x.float(), weight.half().float(), ends)
    assert got.dtype == torch.float16
    torch.testing.assert_close(got.float(), wanted, rtol=2e-3, atol=2e-3)


@BITS
@pytest.mark.parametrize(
    ("shape", "outputs"), [((3, 96), 40), ((2, 2, 32), 16), ((20, 160), 7), ((0, 32), 16)]
)
def test_packed_linear(interpreted: Run, bits: Bits, shape: tuple[int, ...], outputs: int) -> None:
    x, weight, bias = random(*shape), pack(random(outputs, shape[-1], seed=1), bits), random(outputs, seed=2)
    for added in (None, bias):
        got = interpreted(triton_grouped.packed_linear, x, weight, added)
        torch.testing.assert_close(got, reference.packed_linear(x, weight, added), rtol=0, atol=2e-5)


@BITS
def test_packed_linear_stack(interpreted: Run, bits: Bits) -> None:
    x, weight = random(5, 3, 64), pack(random(3, 24, 64, seed=1), bits)
    got = interpreted(triton_grouped.packed_linear_stack, x, weight)
    torch.testing.assert_close(got, reference.packed_linear_stack(x, weight), rtol=0, atol=2e-5)


@BITS
@pytest.mark.parametrize(("tokens", "experts", "chosen"), [(1, 8, 3), (7, 5, 2), (40, 2, 1), (3, 1, 1)])
def test_packed_experts(interpreted: Run, bits: Bits, tokens: int, experts: int, chosen: int) -> None:
    generator = torch.Generator().manual_seed(tokens)
    order = torch.stack([torch.randperm(experts, generator=generator)[:chosen] for _ in range(tokens)])
    gate_up = pack(random(experts, 64, 96, seed=1) / 10, bits)
    down = pack(random(experts, 96, 32, seed=2) / 6, bits)
    operands = (random(tokens, 96), order, torch.rand(order.shape, generator=generator), gate_up, down)
    got = interpreted(triton_grouped.packed_experts, *operands)
    torch.testing.assert_close(got, reference.packed_experts(*operands), rtol=0, atol=1e-5)
