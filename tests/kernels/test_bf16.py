"""Products in bfloat16: the rounded factors' exact products, for every layout and size, with gradients."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from shoestring import kernels
from shoestring.kernels import bf16, cpu_fused, ops, reference

SIZES = st.sampled_from([1, 2, 15, 16, 17, 31, 32, 33, 64, 100, 513, 600])


def close(ours: Tensor, exact: Tensor, magnitude: Tensor) -> None:
    """`ours` is `exact`, in float64, but for the rounding of float32 sums of this magnitude."""
    assert ours.dtype == torch.float32
    assert bool(((ours - exact).abs() <= 1e-6 * magnitude).all())


def check(name: str, a: Tensor, b: Tensor, *rest: Tensor) -> Tensor:
    result, twin = getattr(ops, name)(a, b, *rest), getattr(reference, name)
    close(result, twin(a.double(), b.double(), *rest), twin(a.double().abs(), b.double().abs(), *rest))
    return result


def laid_out(rows: int, columns: int, layout: str, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    if layout == "transposed":
        return torch.randn(columns, rows, generator=generator).T
    if layout == "part":
        return torch.randn(rows, columns + 3, generator=generator)[:, 1 : columns + 1]
    step = 2 if layout == "strided" else 1
    return torch.randn(rows, step * columns, generator=generator)[:, ::step]


LAYOUTS = st.sampled_from(["rows", "transposed", "part", "strided"])


@given(SIZES, SIZES, SIZES, LAYOUTS, LAYOUTS)
def test_a_product_is_that_of_the_rounded_factors(
    rows: int, columns: int, depth: int, left: str, right: str
) -> None:
    check("product_bf16", laid_out(rows, depth, left, 1), laid_out(depth, columns, right, 2))


@given(st.lists(st.sampled_from([0, 1, 5, 16, 40]), min_size=1, max_size=5), SIZES, SIZES, st.booleans())
def test_grouped_products_take_each_experts_rows(
    counts: list[int], depth: int, width: int, is_transposed: bool
) -> None:
    ends = torch.tensor(counts).cumsum(0).to(torch.int32)
    rows, other = torch.randn(sum(counts), depth), torch.randn(sum(counts), width)
    shape = (len(counts), width, depth) if is_transposed else (len(counts), depth, width)
    matrices = torch.randn(shape)
    check("grouped_product_bf16", rows, matrices.mT if is_transposed else matrices, ends)
    check("grouped_outer_bf16", rows, other, ends)


def test_a_row_depends_on_no_other_row_and_on_no_number_of_threads() -> None:
    a, b = torch.randn(300, 700), torch.randn(700, 530)
    whole = ops.product_bf16(a, b)
    assert torch.equal(ops.product_bf16(a[37:40], b), whole[37:40])
    threads = torch.get_num_threads()
    try:
        for number in (1, 2, 3):
            torch.set_num_threads(number)
            assert torch.equal(ops.product_bf16(a, b), whole)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_what_is_not_finite_stays_so(value: float) -> None:
    a, b = torch.randn(20, 40), torch.randn(40, 20)
    a[3, 5] = value
    is_finite = ops.product_bf16(a, b).isfinite()
    assert not is_finite[3].any()
    assert is_finite[[0, 19]].all()


def test_gradients_are_rounded_products_too() -> None:
    x, weight = torch.randn(2, 9, 40, requires_grad=True), torch.randn(24, 40, requires_grad=True)
    bias, dy = torch.randn(24, requires_grad=True), torch.randn(2, 9, 24)
    y = kernels.linear_bf16(x, weight, bias)
    y.backward(dy)
    exact = reference.product_bf16
    dy_ND, x_ND = dy.flatten(0, 1).double(), x.detach().flatten(0, 1).double()
    expected = {
        y: exact(x_ND, weight.detach().double().T).view(2, 9, 24) + bias,
        x.grad: exact(dy_ND, weight.detach().double()).view(2, 9, 40),
        weight.grad: exact(dy_ND.T, x_ND),
        bias.grad: dy_ND.sum(0),
    }
    for ours, theirs in expected.items():
        torch.testing.assert_close(ours.double(), theirs.double(), rtol=1e-5, atol=1e-5)


def test_gradients_of_experts_are_rounded_products_too() -> None:
    ends = torch.tensor([7, 7, 20], dtype=torch.int32)
    x, weight = torch.randn(20, 12, requires_grad=True), torch.randn(3, 10, 12, requires_grad=True)
    dy = torch.randn(20, 10)
    y = kernels.grouped_linear_bf16(x, weight, ends)
    y.backward(dy)
    rows, matrices = x.detach().double(), weight.detach().double()
    expected = {
        y: reference.grouped_product_bf16(rows, matrices.mT, ends),
        x.grad: reference.grouped_product_bf16(dy.double(), matrices, ends),
        weight.grad: reference.grouped_outer_bf16(dy.double(), rows, ends),
    }
    for ours, theirs in expected.items():
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-5, atol=1e-5)
    assert not weight.grad[1].any()


def test_frozen_weights_and_inputs_get_no_gradient() -> None:
    x, weight = torch.randn(5, 8), torch.randn(6, 8, requires_grad=True)
    kernels.linear_bf16(x, weight).sum().backward()
    assert weight.grad is not None
    assert x.grad is None


def test_sixteen_bit_activations_are_computed_as_ever() -> None:
    x, weight = torch.randn(5, 8).bfloat16(), torch.randn(6, 8)
    assert torch.equal(bf16.linear_bf16(x, weight), ops.linear(x, weight))
    stack, ends = torch.randn(1, 6, 8), torch.tensor([5], dtype=torch.int32)
    assert torch.equal(bf16.grouped_linear_bf16(x, stack, ends), ops.grouped_linear(x, stack, ends))


def test_the_loss_and_its_gradients_by_rounded_products() -> None:
    hidden, weight = torch.randn(70, 24, requires_grad=True), torch.randn(50, 24, requires_grad=True)
    targets, weights = torch.randint(-1, 50, (70,)), torch.rand(70)
    loss, _ = kernels.linear_cross_entropy(hidden, weight, targets, weights, rows_at_once=32, in_bf16=True)
    loss.backward()
    exact_hidden = hidden.detach().bfloat16().double().requires_grad_()
    exact_weight = weight.detach().bfloat16().double().requires_grad_()
    nll = -(exact_hidden @ exact_weight.T).log_softmax(-1).gather(1, targets.clamp(min=0)[:, None])[:, 0]
    exact = (nll * weights * (targets >= 0)).sum()
    exact.backward()
    torch.testing.assert_close(loss.double(), exact, rtol=1e-6, atol=1e-6)
    for ours, theirs in ((hidden.grad, exact_hidden.grad), (weight.grad, exact_weight.grad)):
        torch.testing.assert_close(
            ours.double(), theirs, rtol=1e-2, atol=1e-2
        )  # softmax - one_hot is rounded too


def test_a_cpu_without_the_matrix_unit_computes_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b, ends = torch.randn(30, 40), torch.randn(40, 20), torch.tensor([10, 30], dtype=torch.int32)
    ours = [cpu_fused.product_bf16(a, b), cpu_fused.grouped_product_bf16(a, b.expand(2, 40, 20), ends)]
    ours.append(cpu_fused.grouped_outer_bf16(a, a, ends))
    monkeypatch.setattr(cpu_fused, "has_bf16_products", lambda: False)
    plain = [cpu_fused.product_bf16(a, b), cpu_fused.grouped_product_bf16(a, b.expand(2, 40, 20), ends)]
    plain.append(cpu_fused.grouped_outer_bf16(a, a, ends))
    for one, other in zip(ours, plain, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("sizes", [(1, 1, 1), (3, 20, 33), (2, 96, 128), (1, 40, 600)])
def test_newton_schulz_by_rounded_products(sizes: tuple[int, int, int]) -> None:
    x = torch.randn(sizes)
    x = x / x.norm(dim=(-2, -1), keepdim=True)
    once, exact = ops.newton_schulz_bf16(x, 1), reference.newton_schulz_bf16(x.double(), 1)
    torch.testing.assert_close(
        once.double(), exact, rtol=1e-2, atol=1e-4
    )  # a sum may be rounded the other way
    values = torch.linalg.svdvals(ops.newton_schulz_bf16(x, 5))
    torch.testing.assert_close(
        values, torch.linalg.svdvals(reference.newton_schulz(x, 5)), rtol=0.1, atol=0.05
    )
    assert torch.equal(ops.newton_schulz_bf16(x.flip(0), 5).flip(0), ops.newton_schulz_bf16(x, 5))
