from functools import partial

import pytest
import torch
from torch.nn import functional as F

from shoestring import kernels
from shoestring.low_precision.formats import E2M1, E4M3, quantize
from shoestring.low_precision.products import Precision, grouped_product, product, swiglu, swiglu_packed

PLAIN = Precision()


def integers(*shape, seed, largest=8):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-largest, largest + 1, shape, generator=generator).float()


def normal(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def run(function, *tensors, gradient):
    leaves = [tensor.clone().requires_grad_() for tensor in tensors]
    out = function(*leaves)
    out.backward(gradient)
    return out.detach(), *(leaf.grad for leaf in leaves)


@pytest.mark.parametrize(
    "precision",
    [
        PLAIN,
        Precision(gradient_block=(128, 128)),
        Precision(keeps_six_bits=True),
        Precision(power_of_two=True),
    ],
)
def test_what_e4m3_holds_exactly_is_multiplied_exactly(precision):
    """Integers to 7 in blocks whose largest is 7 * 2^k are scaled by powers of two: nothing is rounded."""
    x, weight, dy = (
        integers(*shape, seed=i, largest=7) for i, shape in enumerate([(200, 150), (140, 150), (200, 140)])
    )
    for tensor in (x, weight, dy):
        tensor[:] = tensor.where(
            torch.rand(tensor.shape, generator=torch.Generator().manual_seed(9)) < 0.7, 7.0
        )
    found = run(partial(product, bias_F=None, precision=precision), x, weight, gradient=dy)
    expected = run(kernels.linear, x, weight, gradient=dy)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=2e-6, atol=2e-3)


def test_operands_are_rounded_as_the_paper_says():
    x, weight, dy = normal(300, 256, seed=1), normal(140, 256, seed=2), normal(300, 140, seed=3)
    y, dx, dw = run(partial(product, bias_F=None, precision=PLAIN), x, weight, gradient=dy)
    row, column, block = (1, 128), (128, 1), (128, 128)
    x8, w8 = quantize(x, E4M3, row).dequantize(), quantize(weight, E4M3, block).dequantize()
    torch.testing.assert_close(y, x8 @ w8.T, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(dx, quantize(dy, E4M3, row).dequantize() @ w8, rtol=1e-5, atol=1e-4)
    dy8, again = quantize(dy, E4M3, column).dequantize(), quantize(x8, E4M3, column).dequantize()
    torch.testing.assert_close(dw, dy8.T @ again, rtol=1e-5, atol=1e-4)
    assert (y - x @ weight.T).norm() / (x @ weight.T).norm() < 0.05
    assert not torch.equal(y, x @ weight.T)


def test_six_bits_keep_the_weights_gradient_nearer():
    x, weight, dy = (
        normal(256, 128, seed=1) * 3,
        normal(64, 128, seed=2),
        integers(256, 64, seed=3, largest=1),
    )
    exact = dy.T @ x
    errors = [
        float((run(partial(product, bias_F=None, precision=p), x, weight, gradient=dy)[2] - exact).norm())
        for p in (Precision(keeps_six_bits=True), PLAIN)
    ]
    assert errors[0] < 0.95 * errors[1]


def test_experts_are_rounded_one_by_one():
    ends, x, weight, dy = (
        [100, 100, 180, 300],
        normal(300, 200, seed=1),
        normal(4, 96, 200, seed=2),
        normal(300, 96, seed=3),
    )
    weight *= torch.tensor([1.0, 10.0, 100.0, 0.01])[:, None, None]
    ends_E = torch.tensor(ends, dtype=torch.int32)
    for precision in (PLAIN, Precision(weight=E2M1, weight_block=(1, 32), power_of_two=True)):
        y, dx, dw = run(partial(grouped_product, ends_E=ends_E, precision=precision), x, weight, gradient=dy)
        for expert, (start, end) in enumerate(zip([0, *ends], ends, strict=False)):
            part = slice(start, end)
            own = run(
                partial(product, bias_F=None, precision=precision), x[part], weight[expert], gradient=dy[part]
            )
            for a, b in zip((y[part], dx[part], dw[expert]), own, strict=True):
                torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-4)


def test_a_bias_is_added_and_shapes_are_kept():
    x, weight, bias = normal(2, 5, 128, seed=1), normal(7, 128, seed=2), normal(7, seed=3)
    y = product(x, weight, bias, PLAIN)
    torch.testing.assert_close(y - bias, product(x.flatten(0, 1), weight, None, PLAIN).view(2, 5, 7))
    assert product(x.bfloat16(), weight, bias, PLAIN).dtype == torch.bfloat16


def test_swiglu_is_exact_forward_and_takes_gradients_at_rounded_inputs():
    gate, up, dy = normal(40, 300, seed=1), normal(40, 300, seed=2), normal(40, 300, seed=3)
    out, *gradients = run(swiglu, gate, up, gradient=dy)
    assert torch.equal(out, F.silu(gate) * up)
    rounded = [quantize(part, E4M3, (1, 128)).dequantize() for part in (gate, up)]
    expected = run(lambda g, u: F.silu(g) * u, *rounded, gradient=dy)[1:]
    for a, b in zip(gradients, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
    both = torch.cat((gate, up), dim=1)
    torch.testing.assert_close(swiglu_packed(both), out, rtol=1e-6, atol=1e-7)
