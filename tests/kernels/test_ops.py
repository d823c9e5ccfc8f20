"""The choice of an implementation, and the loss that never holds all logits."""

import logging
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from shoestring.kernels import cpu_build, cpu_fused, native, ops, reference

Inputs = tuple[Tensor, Tensor, Tensor, Tensor]


@pytest.fixture
def fresh() -> Iterator[None]:
    """Nothing picked before, and nothing that this test picked stays."""
    ops.pick.cache_clear()
    yield
    ops.pick.cache_clear()


def inputs(rows: int, width: int, vocab: int, dtype: torch.dtype = torch.float32) -> Inputs:
    torch.manual_seed(rows)
    hidden, weight = torch.randn(rows, width), torch.randn(vocab, width)
    targets, weights = torch.randint(0, vocab, (rows,)), torch.randn(rows)
    targets[1::4], targets[3::7] = -1, -100
    return hidden.to(dtype).requires_grad_(), weight.to(dtype).requires_grad_(), targets, weights


def expected(hidden: Tensor, weight: Tensor, targets: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    logits = hidden.double() @ weight.double().T
    nll = F.cross_entropy(logits, targets.clamp(min=-1), reduction="none", ignore_index=-1)
    return (nll * weights).sum(), nll


@pytest.mark.parametrize("rows_at_once", [1, 3, 512])
@pytest.mark.parametrize(("rows", "width", "vocab"), [(1, 4, 7), (10, 12, 7), (33, 8, 50), (6, 5, 300)])
def test_the_loss_and_its_gradients(rows: int, width: int, vocab: int, rows_at_once: int) -> None:
    hidden, weight, targets, weights = inputs(rows, width, vocab)
    loss, nll = ops.linear_cross_entropy(hidden, weight, targets, weights, rows_at_once=rows_at_once)
    wanted, wanted_nll = expected(hidden, weight, targets, weights)
    torch.testing.assert_close(loss.double(), wanted, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(nll.double(), wanted_nll, rtol=1e-5, atol=1e-5)
    assert not nll.requires_grad
    ours = torch.autograd.grad(-0.7 * loss, (hidden, weight))
    theirs = torch.autograd.grad(-0.7 * wanted, (hidden, weight))
    for got, want in zip(ours, theirs, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)


def test_a_negative_target_counts_nothing() -> None:
    hidden, weight, targets, weights = inputs(6, 8, 7)
    loss, nll = ops.linear_cross_entropy(hidden, weight, targets.fill_(-100), weights)
    loss.backward()
    assert loss.item() == 0
    assert not nll.any()
    assert not hidden.grad.any()
    assert not weight.grad.any()


def test_only_what_needs_a_gradient_gets_one() -> None:
    hidden, weight, targets, weights = inputs(9, 8, 20)
    with torch.no_grad():
        bare, _ = ops.linear_cross_entropy(hidden, weight, targets, weights)
    assert not bare.requires_grad
    loss, _ = ops.linear_cross_entropy(hidden, weight.detach(), targets, weights)
    loss.backward()
    torch.testing.assert_close(bare, loss.detach())
    wanted, _ = expected(hidden, weight, targets, weights)
    torch.testing.assert_close(hidden.grad, torch.autograd.grad(wanted, hidden)[0], rtol=1e-5, atol=1e-5)


def test_the_operands_are_left_alone() -> None:
    hidden, weight, targets, weights = inputs(5, 8, 9)
    copies = [x.clone() for x in (hidden, weight, targets, weights)]
    ops.linear_cross_entropy(hidden, weight, targets, weights)
    assert all(torch.equal(a, b) for a, b in zip(copies, (hidden, weight, targets, weights), strict=True))


def test_bfloat16_activations_over_float32_weights() -> None:
    hidden, weight, targets, weights = inputs(40, 16, 30)
    half = hidden.detach().bfloat16().requires_grad_()
    loss, nll = ops.linear_cross_entropy(half, weight, targets, weights.abs())
    loss.backward()
    wanted, _ = expected(hidden, weight, targets, weights.abs())
    wanted.backward()
    assert (loss.dtype, nll.dtype, half.grad.dtype) == (torch.float32, torch.float32, torch.bfloat16)
    assert weight.grad.dtype == torch.float32
    torch.testing.assert_close(loss.double(), wanted, rtol=0.02, atol=0.02)
    torch.testing.assert_close(half.grad.float(), hidden.grad, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_bad_number_in_the_hidden_state_makes_the_loss_bad(bad: float) -> None:
    for row in range(9):
        hidden, weight, targets, weights = inputs(9, 8, 7)
        with torch.no_grad():
            hidden[row, 3] = bad
        loss, _ = ops.linear_cross_entropy(hidden, weight, targets, weights)
        assert not loss.isfinite()


def test_the_fastest_twin_is_picked(fresh: None, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="shoestring.kernels.ops"):
        for _ in range(3):
            assert ops.pick("swiglu", "cpu", torch.float32) is cpu_fused.swiglu
    assert len(caplog.messages) == 1  # said once
    assert "swiglu on cpu" in caplog.text
    assert ops.pick("grouped_linear", "cpu", torch.float32) is native.grouped_linear
    assert ops.pick("rms_norm", "cpu", torch.bfloat16) is native.rms_norm
    assert ops.pick("rms_norm", "cuda", torch.float32) is native.rms_norm
    assert ops.pick("dispatch", "cuda", torch.bfloat16) is reference.dispatch


def test_without_compiled_kernels_the_others_are_picked(fresh: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_build, "library", lambda: None)
    assert ops.pick("swiglu", "cpu", torch.float32) is reference.swiglu
    assert ops.pick("causal_attention", "cpu", torch.float32) is native.causal_attention


@pytest.mark.parametrize("rows_at_once", [1, 4, 512])
def test_token_logprobs_and_the_gradient_of_any_function_of_them(rows_at_once: int) -> None:
    hidden, weight, targets, weights = inputs(21, 8, 30)
    logp = ops.token_logprobs(hidden, weight, targets, rows_at_once=rows_at_once)
    _, nll = expected(hidden, weight, targets, weights)
    torch.testing.assert_close(logp.double(), -nll, rtol=1e-5, atol=1e-5)
    ours = torch.autograd.grad((logp.exp() * weights).sum(), (hidden, weight))
    theirs = torch.autograd.grad(((-nll).exp() * weights).sum(), (hidden, weight))
    for got, want in zip(ours, theirs, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)
    frozen = ops.token_logprobs(hidden, weight.detach(), targets, rows_at_once=rows_at_once)
    (alone,) = torch.autograd.grad((frozen.exp() * weights).sum(), (hidden,))
    torch.testing.assert_close(alone, ours[0], rtol=0, atol=0)
