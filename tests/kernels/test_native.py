"""What torch's own operators refuse or hide, and how their wrappers answer."""

import pytest
import torch

from shoestring.kernels import native, reference


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize(("width", "out"), [(16, 8), (12, 20), (6, 20), (20, 6), (1, 3), (3, 1), (4, 4)])
@pytest.mark.parametrize("ends", [[0, 0, 7, 7], [1, 1, 1, 1], [0, 2, 3, 9], [0, 0, 0, 0]])
def test_every_size_has_a_grouped_product(width: int, out: int, ends: list[int], dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    x = torch.randn(ends[-1], width, dtype=dtype, requires_grad=True)
    weight = torch.randn(4, out, width, dtype=dtype, requires_grad=True)
    offsets = torch.tensor(ends, dtype=torch.int32)
    results = [room.grouped_linear(x, weight, offsets) for room in (native, reference)]
    ours, theirs = ([y, *torch.autograd.grad(y.sum(), (x, weight))] for y in results)  # an expanded gradient
    for got, want in zip(ours, theirs, strict=True):
        assert got.dtype == dtype
        torch.testing.assert_close(got, want, rtol=0.02 if dtype.itemsize == 2 else 1e-5, atol=0.05)


def test_rows_that_are_not_contiguous() -> None:
    rows, ends = torch.randn(8, 32)[:, ::2], torch.tensor([3, 8], dtype=torch.int32)
    weight = torch.randn(2, 8, 16)
    torch.testing.assert_close(
        native.grouped_linear(rows, weight, ends), reference.grouped_linear(rows, weight, ends)
    )


def test_grouped_weights_may_be_kept_in_another_precision() -> None:
    rows, ends = torch.randn(8, 16).bfloat16(), torch.tensor([3, 8], dtype=torch.int32)
    for weight in (torch.randn(2, 8, 16, requires_grad=True), torch.randn(2, 3, 16, requires_grad=True)):
        out = native.grouped_linear(rows, weight, ends)
        out.float().sum().backward()
        assert (out.dtype, weight.grad.dtype) == (torch.bfloat16, torch.float32)
        torch.testing.assert_close(weight.grad[0, 0], rows[:3].float().sum(0), rtol=0.02, atol=0.02)


def test_a_row_of_nan_scores_is_not_made_zero() -> None:
    """As torch 2.13 does on the CPU."""
    q, k, v = (torch.randn(1, 5, 1, 8) for _ in range(3))
    q[0, 2, 0, 3] = float("nan")
    out = native.causal_attention(q, k, v, 0.3)
    assert out[0, 2].isnan().all()
    assert out[0, [0, 1, 3, 4]].isfinite().all()
