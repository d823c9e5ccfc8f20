"""The inference twins: equal to the specification, and no row depends on its neighbors, to the last bit."""

from types import ModuleType

import pytest
import torch
from torch import Tensor

from shoestring import kernels
from shoestring.kernels import cpu_rows, ops, reference
from shoestring.kernels.packed import Packed, pack

SHAPES = [(1, 32, 16), (2, 64, 40), (7, 96, 4), (100, 160, 33), (13, 2048, 48)]


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def assert_close(got: Tensor, expected: Tensor, relative: float) -> None:
    assert got.shape == expected.shape
    assert (got - expected).norm() <= relative * expected.norm()


def quantization(bits: int) -> float:
    """Relative error that rounding the activations brings: 8 bits with 4-bit weights, 16 with int8."""
    return {4: 8e-3, 8: 5e-5, 32: 2e-6}[bits]


@pytest.mark.parametrize(("rows", "depth", "outputs"), [*SHAPES, (5, 37, 3)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_linear(rows: int, depth: int, outputs: int, dtype: torch.dtype) -> None:
    x, w, bias = random(rows, depth), random(outputs, depth, seed=1).to(dtype), random(outputs, seed=2)
    assert_close(cpu_rows.linear(x, w, bias), reference.linear(x, w, bias), 1e-6)
    assert_close(cpu_rows.linear(x, w, None), reference.linear(x, w, None), 1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_linear_stack(dtype: torch.dtype) -> None:
    x, w = random(5, 3, 40), random(3, 21, 40, seed=1).to(dtype)
    assert_close(cpu_rows.linear_stack(x, w), reference.linear_stack(x, w), 1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_grouped_linear(dtype: torch.dtype) -> None:
    x, w = random(9, 40), random(4, 21, 40, seed=1).to(dtype)
    ends = torch.tensor([2, 2, 8, 9], dtype=torch.int32)
    assert_close(cpu_rows.grouped_linear(x, w, ends), reference.grouped_linear(x, w, ends), 1e-6)


@pytest.mark.parametrize(("rows", "depth", "outputs"), SHAPES)
@pytest.mark.parametrize("bits", [4, 8, 32])
def test_packed_linear(rows: int, depth: int, outputs: int, bits: int) -> None:
    x, w, bias = random(rows, depth), pack(random(outputs, depth, seed=1), bits), random(outputs, seed=2)
    assert_close(cpu_rows.packed_linear(x, w, bias), reference.packed_linear(x, w, bias), quantization(bits))
    assert_close(cpu_rows.packed_linear(x, w, None), reference.packed_linear(x, w, None), quantization(bits))


@pytest.mark.parametrize("bits", [4, 8, 32])
def test_packed_linear_takes_any_layout_and_leading_shape(bits: int) -> None:
    w = pack(random(20, 64, seed=1), bits)
    x = random(2, 64, 3).transpose(1, 2)
    assert_close(cpu_rows.packed_linear(x, w, None), reference.packed_linear(x, w, None), quantization(bits))
    assert cpu_rows.packed_linear(x[:0], w, None).shape == (0, 3, 20)


@pytest.mark.parametrize("bits", [4, 8, 32])
def test_packed_linear_stack(bits: int) -> None:
    x, w = random(5, 3, 64), pack(random(3, 40, 64, seed=1), bits)
    assert_close(cpu_rows.packed_linear_stack(x, w), reference.packed_linear_stack(x, w), quantization(bits))


def experts(bits: int, *, hidden: int = 64, width: int = 96, count: int = 6) -> tuple[Packed, Packed]:
    gate_up = random(count, 2 * width, hidden, seed=4) * hidden**-0.5
    return pack(gate_up, bits), pack(random(count, hidden, width, seed=5) * width**-0.5, bits)


def routing(rows: int, count: int = 6, per_token: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(6)
    order = torch.rand(rows, count, generator=generator).argsort(-1)[:, :per_token]
    return order, torch.rand(rows, per_token, generator=generator)


@pytest.mark.parametrize("rows", [0, 1, 2, 17, 230])
@pytest.mark.parametrize("bits", [4, 8, 32])
def test_packed_experts(rows: int, bits: int) -> None:
    x, (chosen, gates), (gate_up, down) = random(rows, 64), routing(rows), experts(bits)
    got = cpu_rows.packed_experts(x, chosen, gates, gate_up, down)
    assert_close(got, reference.packed_experts(x, chosen, gates, gate_up, down), 2 * quantization(bits))


@pytest.mark.parametrize("threads", [1, 2])
def test_a_row_does_not_depend_on_the_others(threads: int) -> None:
    x = random(230, 64)
    w32, w16 = random(50, 64, seed=1), random(50, 64, seed=1).bfloat16()
    packed4, packed8 = pack(w32, 4), pack(w32, 8)
    chosen, gates = routing(230)
    several = [experts(4), experts(8)]
    stack, stack4 = random(2, 20, 32, seed=3), pack(random(2, 20, 32, seed=3), 4)

    def everything(rows: slice) -> list[Tensor]:
        part = x[rows].contiguous()
        return [
            cpu_rows.linear(part, w32, None),
            cpu_rows.linear(part, w16, None),
            cpu_rows.packed_linear(part, packed4, None),
            cpu_rows.packed_linear(part, packed8, None),
            cpu_rows.linear_stack(part.view(-1, 2, 32), stack),
            cpu_rows.packed_linear_stack(part.view(-1, 2, 32), stack4),
            *(cpu_rows.packed_experts(part, chosen[rows], gates[rows], *pair) for pair in several),
        ]

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        together = everything(slice(None))
        for rows in (slice(0, 1), slice(7, 9), slice(100, 104), slice(3, 200)):
            for alone, whole in zip(everything(rows), together, strict=True):
                assert torch.equal(alone, whole[rows])
    finally:
        torch.set_num_threads(before)


def test_experts_in_float32_do_not_depend_on_the_others() -> None:
    x, w = random(12, 40), random(3, 9, 40, seed=1)
    ends = torch.tensor([4, 7, 12], dtype=torch.int32)
    whole = cpu_rows.grouped_linear(x, w, ends)
    alone = cpu_rows.grouped_linear(x[5:6], w, torch.tensor([0, 1, 1], dtype=torch.int32))
    assert torch.equal(alone, whole[5:6])


def test_gradients_go_the_usual_way_and_inference_the_compiled_one() -> None:
    x, w = random(3, 32), torch.nn.Parameter(random(5, 32, seed=1))
    kernels.linear(x, w).sum().backward()
    assert w.grad is not None
    with torch.no_grad():
        kernels.linear(x, w)
    assert ops.pick("linear", "cpu", torch.float32) is reference.linear
    assert ops.pick("linear", "cpu", torch.float32, inference=True) is cpu_rows.linear
    assert ops.pick("packed_experts", "cpu", torch.float32, inference=True) is cpu_rows.packed_experts
    assert ops.pick("linear", "cpu", torch.bfloat16, inference=True) is reference.linear


@pytest.mark.parametrize("vocab", [1, 7, 16, 50, 544])
def test_sample_tokens(vocab: int) -> None:
    logits = random(200, vocab) * 3
    temperatures = torch.tensor([0.0, 1.0, 0.7, 2.0]).repeat(50).double()
    numbers = torch.rand(200, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    numbers[1], numbers[2] = 0.0, 1 - 2.0**-53
    ids, logp = cpu_rows.sample_tokens(logits, temperatures, numbers)
    wanted_ids, wanted_logp = reference.sample_tokens(logits, temperatures, numbers)
    assert torch.equal(ids, wanted_ids)
    torch.testing.assert_close(logp, wanted_logp, rtol=0, atol=2e-6)
    for n in (0, 3, 150):
        alone = cpu_rows.sample_tokens(*(x[n : n + 1] for x in (logits, temperatures, numbers)))
        assert torch.equal(alone[0], ids[n : n + 1])
        assert torch.equal(alone[1], logp[n : n + 1])


@pytest.mark.parametrize("room", [cpu_rows, reference])
def test_sample_tokens_of_rows_without_a_likeliest_one(room: ModuleType) -> None:
    logits = torch.zeros(5, 20)
    logits[0], logits[1, 3], logits[2, 19], logits[3, :18] = -torch.inf, torch.nan, torch.inf, -torch.inf
    for temperature in (0.0, 1.0):
        columns = torch.full((5,), temperature).double(), torch.full((5,), 0.9999).double()
        ids, logp = room.sample_tokens(logits, *columns)
        assert ids.tolist() == [-1, -1, -1, 19 if temperature else 18, 19 if temperature else 0]
        assert logp[:3].tolist() == [0, 0, 0]
        torch.testing.assert_close(logp[3:], torch.tensor([0.5, 0.05]).log())


@pytest.mark.parametrize("count", [1, 7, 8, 100])
def test_uniform_numbers(count: int) -> None:
    seeds = torch.randint(-(2**63), 2**63 - 1, (count,), generator=torch.Generator().manual_seed(count))
    indices = torch.arange(count) ** 5
    numbers = cpu_rows.uniform_numbers(seeds, indices)
    assert torch.equal(numbers, reference.uniform_numbers(seeds, indices))
    assert ((numbers >= 0) & (numbers < 1)).all()
