"""Every fast twin computes what reference.py says: values, gradients, NaN, and the same bits twice."""

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from shoestring import kernels
from shoestring.kernels import cpu_build, cpu_fused, cpu_paged, cpu_rows, native, ops, reference
from shoestring.kernels.layer_weights import RouterWeights

TWINS = (cpu_fused, native)
TOLERANCE = 3e-6  # of the largest value: a few float32 roundings, however long the sum
HALF_TOLERANCE = 0.02  # of the largest value, in bfloat16


@dataclass(frozen=True)
class Case:
    """One call: an operation, a name for the sizes, a maker of float64 arguments."""

    op: str
    sizes: tuple[Any, ...]
    make: Callable[..., list[Any]]

    def arguments(self) -> list[Any]:
        torch.manual_seed(hash(self.sizes) % 2**31)
        return self.make(*self.sizes)

    def __str__(self) -> str:
        return "-".join([self.op, *map(str, self.sizes)])


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def rms_norm(rows: int, width: int) -> list[Any]:
    return [normal(rows, width) * 3, normal(width), 1e-6]


def pair(rows: int, width: int) -> list[Any]:
    return [normal(rows, width) * 4, normal(rows, width)]


def packed(rows: int, width: int) -> list[Any]:
    return [normal(rows, 2 * width) * 4]


def rotate(rows: int, heads: int, width: int, half: int, interleave: bool) -> list[Any]:
    angles = normal(rows, half) * 9
    return [normal(rows, heads, width), angles.cos() * 1.2, angles.sin() * 1.2, interleave]


def attention(batch: int, length: int, heads: int, groups: int, width: int, value: int) -> list[Any]:
    q, k = normal(batch, length, heads, width), normal(batch, length, groups, width)
    return [q * 2, k, normal(batch, length, groups, value), width**-0.5]


def segments(heads: int, groups: int, width: int, value: int, *cuts: tuple[int, int]) -> list[Any]:
    """Rows of one batch row, cut into segments: their lengths, and 1 if they go on from an earlier one."""
    rows = sum(count for count, _ in cuts)
    return [*attention(1, rows, heads, groups, width, value), torch.tensor(cuts)]


def expanded(
    batch: int,
    length: int,
    heads: int,
    own: int,
    half: int,
    value: int,
    interleave: bool,
    *cuts: tuple[int, int],
) -> list[Any]:
    q, kv = normal(batch, length, heads, own + 2 * half), normal(batch, length, heads, own + value)
    angles = normal(batch * length, half) * 9
    rest = [angles.cos() * 1.2, angles.sin() * 1.2, interleave, 0.3, torch.tensor(cuts) if cuts else None]
    return [q * 2, kv, normal(batch, length, 2 * half), *rest]


PROMPTS = ((5, 0), (3, 1), (0, 1), (26, 1), (2, 0), (40, 0), (33, 1), (1, 1))
"""Two prompts with answers, one of them without a token of its own, and one prompt without answers."""


def grouped(width: int, out: int, *counts: int) -> list[Any]:
    ends = torch.tensor(counts).cumsum(0).to(torch.int32)
    return [normal(sum(counts), width), normal(len(counts), out, width), ends]


def positions(tokens: int, copies: int) -> Tensor:
    return torch.randperm(tokens * copies).view(tokens, copies)


def dispatch(tokens: int, copies: int, width: int) -> list[Any]:
    return [normal(tokens, width), positions(tokens, copies)]


def combine(tokens: int, copies: int, width: int) -> list[Any]:
    return [normal(tokens * copies, width), positions(tokens, copies), normal(tokens, copies)]


def loss_rows(rows: int, vocab: int, weighted: bool) -> list[Any]:
    targets = torch.randint(0, vocab, (rows,))
    targets[1::3], targets[2::5] = -1, -100
    return [normal(rows, vocab) * 5, targets, normal(rows) if weighted else None]


def cases(op: str, make: Callable[..., list[Any]], *sizes: tuple[Any, ...]) -> list[Case]:
    return [Case(op, size, make) for size in sizes]


ROWS = ((1, 1), (1, 8), (3, 7), (5, 16), (64, 33), (2, 250))
MOVES = ((1, 1, 1), (1, 4, 8), (7, 2, 5), (33, 3, 40))
CASES = [
    *cases("rms_norm", rms_norm, *ROWS),
    *cases("swiglu", pair, *ROWS),
    *cases("swiglu_packed", packed, *ROWS),
    *cases("rotate", rotate, (1, 1, 2, 1, True), (5, 3, 10, 3, True), (5, 3, 10, 3, False)),
    *cases("rotate", rotate, (9, 2, 16, 8, True), (9, 2, 16, 8, False), (70, 1, 48, 8, True)),
    *cases("causal_attention", attention, (1, 1, 1, 1, 1, 1), (2, 1, 4, 2, 8, 8), (1, 5, 1, 1, 7, 3)),
    *cases(
        "causal_attention", attention, (2, 33, 4, 4, 24, 16), (1, 48, 6, 2, 16, 16), (1, 49, 6, 1, 12, 20)
    ),
    *cases("causal_attention", attention, (2, 130, 2, 2, 48, 32), (1, 97, 3, 3, 5, 9), (1, 25, 2, 1, 8, 8)),
    *cases("causal_attention", segments, (1, 1, 3, 2, (2, 0), (1, 1), (2, 1)), (4, 2, 20, 12, *PROMPTS)),
    *cases("expanded_attention", expanded, (1, 3, 1, 2, 1, 3, True), (2, 33, 4, 24, 8, 16, True)),
    *cases(
        "expanded_attention", expanded, (1, 50, 3, 12, 4, 9, False), (1, 110, 2, 32, 8, 32, True, *PROMPTS)
    ),
    *cases("grouped_linear", grouped, (16, 24, 4, 3, 5), (8, 4, 0, 9, 0), (12, 20, 1, 0, 2), (6, 10, 3, 4)),
    *cases(
        "grouped_linear", grouped, (1, 1, 2), (4, 4, 1), (7, 8, 0, 0, 5), (8, 3, 6, 0), (32, 16, 40, 1, 30)
    ),
    *cases("grouped_linear", grouped, (8, 8, 0, 0), (6, 5, 0, 0)),
    *cases("dispatch", dispatch, *MOVES),
    *cases("combine", combine, *MOVES),
    *cases("cross_entropy_rows", loss_rows, (1, 1, True), (1, 7, True), (9, 7, True), (9, 7, False)),
    *cases("cross_entropy_rows", loss_rows, (20, 33, True), (4, 1000, True), (4, 16, False)),
]
CONSTANT = {
    "rotate": (1, 2),
    "expanded_attention": (3, 4),
}  # float arguments that get no gradient: the angles

RUNS = [
    pytest.param(getattr(room, case.op), case, id=f"{room.__name__.rpartition('.')[2]}-{case}")
    for case in CASES
    for room in TWINS
    if hasattr(room, case.op)
]
SMALL = [run for run in RUNS if sum(a.numel() for a in run.values[1].arguments() if torch.is_tensor(a)) < 400]


def outcome(
    function: Callable[..., Tensor], arguments: list[Any], case: Case, dtype: torch.dtype
) -> list[Tensor]:
    """The result, then what the call made of its arguments: gradients, or the logits' replacement."""
    given = [x.to(dtype, copy=True) if is_float(x) else x for x in arguments]
    if case.op == "cross_entropy_rows":
        return [function(*given), *([given[0]] if given[2] is not None else [])]
    learned = [x for i, x in enumerate(given) if is_float(x) and i not in CONSTANT.get(case.op, ())]
    for x in learned:
        x.requires_grad_()
    result = function(*given)
    upstream = torch.randn(result.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return [result.detach(), *torch.autograd.grad(result, learned, upstream.to(dtype))]


def is_float(x: Any) -> bool:
    return torch.is_tensor(x) and x.is_floating_point()


@pytest.fixture
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reference takes its statistics in float32; here it takes all in float64."""
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)


def assert_close(got: list[Tensor], wanted: list[Tensor], tolerance: float) -> None:
    assert len(got) == len(wanted)
    for ours, theirs in zip(got, wanted, strict=True):
        assert ours.shape == theirs.shape
        assert ours.isfinite().all()
        scale = theirs.abs().max().clamp(min=1).item() if theirs.numel() else 1.0
        torch.testing.assert_close(ours.double(), theirs.double(), rtol=0, atol=tolerance * scale)


@pytest.mark.parametrize(("twin", "case"), RUNS)
def test_a_twin_computes_values_and_gradients_of_the_reference(twin: Any, case: Case, exact: None) -> None:
    arguments = case.arguments()
    ours = outcome(twin, arguments, case, torch.float32)
    wanted = outcome(getattr(reference, case.op), arguments, case, torch.float64)
    assert_close(ours, wanted, TOLERANCE)


@pytest.mark.parametrize(("twin", "case"), [r for r in RUNS if r.values[0].__module__ == native.__name__])
def test_a_native_twin_works_in_bfloat16(twin: Any, case: Case) -> None:
    arguments = [x.bfloat16().double() if is_float(x) else x for x in case.arguments()]
    ours = outcome(twin, arguments, case, torch.bfloat16)
    wanted = outcome(getattr(reference, case.op), arguments, case, torch.float64)
    assert all(x.dtype == torch.bfloat16 for x in ours)
    assert_close(ours, wanted, HALF_TOLERANCE)


@pytest.mark.parametrize(("twin", "case"), RUNS)
def test_a_twin_gives_the_same_bits_twice(twin: Any, case: Case) -> None:
    arguments = case.arguments()
    first, second = (outcome(twin, arguments, case, torch.float32) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(("twin", "case"), SMALL)
def test_a_twin_hands_on_what_is_not_finite(twin: Any, case: Case, bad: float) -> None:
    """Wherever one bad number stands in an operand, it shows in each result where the reference shows it.

    PyTorch's own attention shows it in the output only: its gradients come from a loss that is NaN already.
    """
    arguments = case.arguments()
    checked, shown = 0, 1 if twin in (native.causal_attention, native.expanded_attention) else 99
    for index, operand in enumerate(arguments):
        if not is_float(operand):
            continue
        for place in range(0, operand.numel(), max(1, operand.numel() // 13)):
            spoiled = [x.clone() if is_float(x) else x for x in arguments]
            spoiled[index].view(-1)[place] = bad
            ours = outcome(twin, spoiled, case, torch.float32)
            wanted = outcome(getattr(reference, case.op), spoiled, case, torch.float32)
            for got, expected in zip(ours[:shown], wanted[:shown], strict=True):
                if not expected.isfinite().all():
                    assert not got.isfinite().all(), f"operand {index}, place {place}"
                    checked += 1
    assert checked or bad < 0 or not arguments[0].numel()


@pytest.mark.parametrize(("twin", "case"), [r for r in SMALL if r.values[1].op != "cross_entropy_rows"])
def test_a_nan_gradient_is_handed_on(twin: Any, case: Case) -> None:
    given = [x.float().requires_grad_() if is_float(x) else x for x in case.arguments()]
    result = twin(*given)
    if result.numel():
        upstream = torch.randn_like(result)
        upstream.view(-1)[-1] = math.nan
        result.backward(upstream)
        grads = [x.grad for x in given if is_float(x) and x.grad is not None]
        assert grads
        assert all(not grad.isfinite().all() for grad in grads)


@pytest.mark.parametrize("twin", [cpu_fused.causal_attention, native.causal_attention])
@pytest.mark.parametrize("which", [0, 1, 2])
@pytest.mark.parametrize("place", [0, 23, 24, 47, 48, 69])
def test_a_nan_reaches_its_own_token_and_no_earlier_block(twin: Any, which: int, place: int) -> None:
    operands = [torch.randn(1, 70, 2, width) for width in (12, 12, 8)]
    operands[which][0, place, 1, 5] = math.nan
    out = twin(*operands, 0.3)
    assert not out[0, place, 1].isfinite().all()
    assert out[0, :, 0].isfinite().all()  # the other head
    if which == 0:
        assert out[0, :place].isfinite().all()
        assert out[0, place + 1 :].isfinite().all()


OPERATIONS = [
    name
    for name, f in inspect.getmembers(reference, inspect.isfunction)
    if f.__module__ == reference.__name__ and not name.startswith("_")
]
INFERENCE = {  # twins without gradients: tested in test_cpu_rows.py, _paged.py, _layers.py, test_bf16.py
    *("linear", "linear_stack", "packed_linear", "packed_linear_stack", "packed_experts"),
    *("paged_attention", "paged_latent_attention", "route", "sample_tokens", "newton_schulz"),
    *("uniform_numbers", "product_bf16", "grouped_product_bf16", "grouped_outer_bf16", "newton_schulz_bf16"),
}


@pytest.mark.parametrize("op", OPERATIONS)
def test_every_operation_is_public_and_tested(op: str) -> None:
    """A new function of reference.py lands here: it needs a public face of the same signature, and cases."""
    public = inspect.signature(getattr(ops, op))
    assert public == inspect.signature(getattr(reference, op))
    assert getattr(kernels, op) is getattr(ops, op)
    assert any(case.op == op for case in CASES) or op in INFERENCE
    for room in (*TWINS, cpu_rows, cpu_paged):
        if hasattr(room, op):
            assert inspect.signature(getattr(room, op)) == public


@pytest.mark.parametrize("room", [*TWINS, cpu_rows, cpu_paged])
def test_a_twin_has_nothing_the_reference_lacks(room: Any) -> None:
    public = [n for n, f in inspect.getmembers(room, inspect.isfunction) if f.__module__ == room.__name__]
    assert not {name for name in public if not name.startswith("_")} - set(OPERATIONS)


def test_the_kernels_compile_here() -> None:
    assert cpu_build.library() is not None, "tests need a C++ compiler"


@pytest.mark.parametrize("softmax", [True, False])
def test_gates_are_the_same_with_any_number_of_threads(softmax: bool) -> None:
    """Of so many tokens that PyTorch gives each thread a part of them."""
    router = RouterWeights(
        weight_ED=torch.zeros(16, 1), bias_E=None, experts=16, per_token=4, groups=1, top_groups=1,
        softmax=softmax, normalize=True, scaling=1.0,
    )  # fmt: skip
    logits_NE = torch.randn(41 * 1013, 16)
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3, 5, 7):
            torch.set_num_threads(threads)
            results.append(reference.route(logits_NE, router))
    finally:
        torch.set_num_threads(before)
    for result in results[1:]:
        assert torch.equal(result.scores_NE, results[0].scores_NE)
        assert torch.equal(result.weights_NK, results[0].weights_NK)
