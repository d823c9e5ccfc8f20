"""The C++ twins where C++ could go wrong: layouts, precisions, indices, extremes, threads."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from shoestring.kernels import cpu_fused, reference

ROOT = Path(__file__).resolve().parents[2]


def strided(*shape: int) -> Tensor:
    """Every other value of a larger tensor."""
    return torch.randn(*shape[:-1], 2 * shape[-1])[..., ::2]


def test_operands_need_not_be_contiguous() -> None:
    q, k, v = strided(2, 9, 4, 8), strided(2, 9, 2, 8), strided(2, 9, 2, 8)
    places = torch.randperm(12).view(3, 4).T
    calls = [
        ("rms_norm", (strided(5, 16), strided(16), 1e-6)),
        ("swiglu", (strided(5, 16), strided(5, 16))),
        ("swiglu_packed", (strided(5, 32),)),
        ("rotate", (strided(6, 2, 16), strided(6, 4), strided(6, 4), True)),
        ("causal_attention", (q, k, v, 0.3)),
        ("dispatch", (strided(4, 8), places)),
        ("combine", (strided(12, 8), places, strided(4, 3))),
    ]
    for name, arguments in calls:
        ours, theirs = (getattr(room, name)(*arguments) for room in (cpu_fused, reference))
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_a_transposed_gradient_is_read_right() -> None:
    x = torch.randn(6, 6, requires_grad=True)
    upstream = torch.randn(6, 6).T
    for name, arguments in [("rms_norm", (x, torch.randn(6), 1e-6)), ("swiglu", (x, x))]:
        ours, theirs = (
            torch.autograd.grad(getattr(room, name)(*arguments), x, upstream)
            for room in (cpu_fused, reference)
        )
        torch.testing.assert_close(ours[0], theirs[0], rtol=1e-5, atol=1e-5)


def test_parameters_may_be_kept_in_another_precision() -> None:
    """A bfloat16 checkpoint computed in float32: C++ must not read its bytes as float32."""
    x, weight = torch.randn(4, 32), torch.randn(32).bfloat16().requires_grad_()
    out = cpu_fused.rms_norm(x, weight, 1e-6)
    out.sum().backward()
    torch.testing.assert_close(out, reference.rms_norm(x, weight, 1e-6))
    assert weight.grad.dtype == torch.bfloat16
    rows, places = torch.randn(6, 8), torch.randperm(6).view(3, 2)
    gates = torch.rand(3, 2, dtype=torch.float64)
    torch.testing.assert_close(cpu_fused.combine(rows, places, gates), reference.combine(rows, places, gates))


def test_a_target_outside_the_vocabulary_is_refused() -> None:
    with pytest.raises(IndexError, match="target 7 is not below the vocabulary size 7"):
        cpu_fused.cross_entropy_rows(torch.randn(2, 7), torch.tensor([0, 7]), None)


def test_targets_and_weights_of_other_types() -> None:
    logits, targets, weights = torch.randn(3, 20), torch.tensor([4, -1, 19]), torch.rand(3).double()
    ours, theirs = logits.clone(), logits.clone()
    nll = cpu_fused.cross_entropy_rows(ours, targets.to(torch.int32), weights)
    torch.testing.assert_close(nll, reference.cross_entropy_rows(theirs, targets, weights))
    torch.testing.assert_close(ours, theirs)


def test_logits_must_be_contiguous() -> None:
    with pytest.raises(ValueError, match="contiguous"):
        cpu_fused.cross_entropy_rows(torch.randn(4, 3).T, torch.zeros(3, dtype=torch.int64), None)


def test_no_rows_at_all() -> None:
    empty, none = torch.empty(0, 8), torch.empty(0, dtype=torch.int64)
    assert cpu_fused.rms_norm(empty, torch.ones(8), 1e-6).shape == (0, 8)
    assert cpu_fused.swiglu_packed(empty).shape == (0, 4)
    assert cpu_fused.cross_entropy_rows(torch.empty(0, 9), none, None).shape == (0,)
    assert cpu_fused.causal_attention(*(torch.empty(2, 0, 3, 8) for _ in range(3)), 1.0).shape == (2, 0, 3, 8)


def test_the_exponential_over_its_whole_range() -> None:
    """swiglu(-x, 1) = -x e^-x / (1 + e^-x): relative error a few roundings from -80 to 80, sane beyond."""
    gate = torch.linspace(-80, 80, 4001, dtype=torch.float64)
    exact = gate / (1 + (-gate).exp())
    got = cpu_fused.swiglu(gate.float(), torch.ones(4001))
    wanted = reference.swiglu(gate.float().double(), torch.ones(4001, dtype=torch.float64))
    torch.testing.assert_close(exact, wanted, rtol=1e-4, atol=0)
    torch.testing.assert_close(got.double(), wanted, rtol=1e-6, atol=1e-37)
    far = torch.tensor([-3e38, -200.0, -90.0, 90.0, 200.0, 3e38] * 4)
    torch.testing.assert_close(cpu_fused.swiglu(far, torch.ones(24)), far.clamp(min=0), rtol=0, atol=20)


def test_large_scores_do_not_overflow() -> None:
    q, k, v = (torch.randn(1, 20, 1, 8) * 300 for _ in range(3))
    ours, theirs = (room.causal_attention(q, k, v, 1.0) for room in (cpu_fused, reference))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-2)
    logits, targets = torch.randn(3, 40) * 1e4, torch.tensor([0, 20, 39])
    wanted = reference.cross_entropy_rows(logits.clone(), targets, None)
    torch.testing.assert_close(cpu_fused.cross_entropy_rows(logits, targets, None), wanted)


@pytest.mark.parametrize(
    "sizes", [(1, 1, 1), (3, 5, 7), (2, 32, 32), (4, 33, 48), (9, 96, 128), (2, 128, 352)]
)
def test_newton_schulz(sizes: tuple[int, int, int]) -> None:
    x = torch.randn(*sizes)
    x = x / x.norm(dim=(-2, -1), keepdim=True)
    before = x.clone()
    ours, wanted = cpu_fused.newton_schulz(x, 5), reference.newton_schulz(x.double(), 5)
    torch.testing.assert_close(ours.double(), wanted, rtol=0, atol=1e-5)
    assert torch.equal(x, before)
    assert torch.equal(cpu_fused.newton_schulz(x[-1:], 5)[0], ours[-1])  # alone as among others
    transposed = x.mT.contiguous().mT
    assert torch.equal(cpu_fused.newton_schulz(transposed, 5), ours)


def test_newton_schulz_of_large_matrices_is_the_reference() -> None:
    x = torch.randn(1, 4, cpu_fused.WIDEST_IN_CACHE + 1) / 50
    assert torch.equal(cpu_fused.newton_schulz(x, 2), reference.newton_schulz(x, 2))


THREADED = """
import torch
from shoestring.kernels import cpu_fused, reference
torch.manual_seed(0)
q, k, v = (torch.randn(3, 70, 4, 16) for _ in range(3))
x, w, places = torch.randn(101, 40), torch.randn(40), torch.randperm(202).view(101, 2)
calls = {
    "causal_attention": (q, k, v, 0.25), "rms_norm": (x, w, 1e-6), "swiglu_packed": (x,),
    "dispatch": (x, places), "combine": (torch.randn(202, 40), places, torch.randn(101, 2)),
}
for name, arguments in calls.items():
    runs = []
    for room in (cpu_fused, cpu_fused, reference):
        given = [a.clone() if torch.is_tensor(a) else a for a in arguments]
        learned = [a.requires_grad_() for a in given if torch.is_tensor(a) and a.is_floating_point()]
        out = getattr(room, name)(*given)
        out.backward(torch.ones_like(out))
        runs.append([out.detach(), *(a.grad for a in learned)])
    for first, second, wanted in zip(*runs):
        assert torch.equal(first, second), name
        torch.testing.assert_close(first, wanted, rtol=1e-4, atol=1e-4)
print("same")
"""


def test_several_threads_agree() -> None:
    done = subprocess.run(
        [sys.executable, "-c", THREADED],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "3", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stdout == "same\n", done.stderr


def test_gradients_of_a_norm_are_the_same_with_any_number_of_threads() -> None:
    """The sums over rows have one order."""
    before = torch.get_num_threads()
    x, weight, dy = torch.randn(1001, 40), torch.randn(40), torch.randn(1001, 40)
    results = []
    try:
        for threads in (1, 2, 3, 5):
            torch.set_num_threads(threads)
            x.grad = weight.grad = None
            cpu_fused.rms_norm(x.requires_grad_(), weight.requires_grad_(), 1e-6).backward(dy)
            results.append((x.grad, weight.grad))
    finally:
        torch.set_num_threads(before)
    for result in results[1:]:
        assert all(map(torch.equal, results[0], result))
