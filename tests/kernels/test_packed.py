"""Packed weights: what the integers stand for, the C++ twin against the specification, what is refused."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from shoestring.errors import CheckpointError
from shoestring.kernels import cpu_rows, packed
from shoestring.kernels.packed import pack, pack_into, packed_shape, quantized, unpack


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Packing in PyTorch alone."""
    monkeypatch.setattr(packed, "available", lambda: False)


def weight(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * 0.02


def test_the_kernels_are_compiled_here() -> None:
    assert packed.available(), "tests need a C++ compiler"


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("shape", [(16, 32), (40, 96), (3, 5, 64)])
def test_unpacking_gives_the_integers_times_their_scales(bits: packed.Bits, shape: tuple[int, ...]) -> None:
    w = weight(*shape)
    stack = w if w.dim() == 3 else w[None]
    integers, words = zip(*(quantized(matrix, bits) for matrix in stack), strict=True)
    expected = packed.weights(torch.stack(integers), torch.stack(words), bits).flatten(2)
    got = unpack(pack(w, bits))
    assert got.shape == stack.shape
    assert torch.allclose(got, expected, atol=2e-4 if bits == 4 else 1e-6)  # two scales may be equally good
    error = (got - stack).square().mean().sqrt() / stack.square().mean().sqrt()
    assert error < (0.08 if bits == 4 else 0.008)


@pytest.mark.parametrize("bits", [4, 8])
def test_pytorch_alone_packs_to_the_same_bytes(bits: packed.Bits, plain: None) -> None:
    w = weight(48, 128, seed=3)
    slow = pack(w, bits).blocks
    fast = torch.empty_like(slow)
    packed.call("pack_weights", bits, 48, 128, w, fast[0])
    assert (slow != fast).float().mean() < 0.001  # where sums of squares differ in their last bit


@pytest.mark.parametrize("shape", [(16, 32), (40, 96), (3, 5, 64)])
@pytest.mark.parametrize("compiled", [True, False])
def test_float32_is_only_put_in_another_order(
    shape: tuple[int, ...], compiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packed, "available", lambda: compiled)
    w = weight(*shape)
    w.view(-1)[7] = float("inf")  # training may bring it about, and sampling must show it
    got = pack(w, 32)
    assert torch.equal(unpack(got), w if w.dim() == 3 else w[None])
    monkeypatch.setattr(packed, "available", lambda: not compiled)
    assert torch.equal(pack(w, 32).blocks, got.blocks)


@pytest.mark.parametrize("bits", [4, 8])
def test_zero_rows_and_zero_groups_stay_zero(bits: packed.Bits) -> None:
    w = weight(17, 64)
    w[3], w[5, :32] = 0, 0
    got = unpack(pack(w, bits))[0]
    assert got[3].abs().max() == 0
    assert got[5, :32].abs().max() == 0
    assert got[5, 32:].abs().max() > 0


def step_of(w: torch.Tensor) -> torch.Tensor:
    groups = w.unflatten(-1, (-1, 32))
    low, high = groups.amin(-1).clamp(max=0), groups.amax(-1).clamp(min=0)
    return ((high - low) / 15)[..., None].expand_as(groups).flatten(-2)


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("lowest", [-7.6, -12.3, -2.1, -15.0, 0.0])
def test_weights_that_have_sixteen_steps_already_nearly_stay(
    lowest: float, compiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Like those of a Q4_1 file, whose least value is at any place between the steps."""
    monkeypatch.setattr(packed, "available", lambda: compiled)
    steps = torch.randint(0, 16, (32, 64), generator=torch.Generator().manual_seed(0)).float()
    steps[:, 0::32], steps[:, 1::32] = 0, 15
    w = (steps + lowest) * 0.013
    error = (unpack(pack(w, 4))[0] - w) / step_of(w)
    assert error.square().mean().sqrt() < 0.13  # rounding again would be 0.29
    assert error.abs().max() < 0.3


@pytest.mark.parametrize("shift", [0.0, 0.02, -0.03, 0.06, -0.1])
def test_weights_that_lie_to_one_side_of_zero_lose_no_step(shift: float) -> None:
    w = weight(64, 128) + shift
    error = (unpack(pack(w, 4))[0] - w) / step_of(w)
    assert error.square().mean().sqrt() < 0.3


@pytest.mark.parametrize("size", [1e-5, 1e-4, 1e-2, 1.0, 1e3])
def test_small_and_large_weights_are_as_exact(size: float) -> None:
    w = weight(32, 64) / 0.02 * size
    assert ((unpack(pack(w, 4))[0] - w).norm() / w.norm()) < 0.08


@pytest.mark.parametrize("mean", [0.0, 3.0, -50.0])
def test_products_with_activations_far_from_zero(mean: float) -> None:
    """The zero of a group times the sum of its activations is most of the product then."""
    w, x = pack(weight(48, 96) + 0.05, 4), weight(7, 96, seed=1) * 50 + mean
    expected = x @ unpack(w)[0].T
    error = cpu_rows.packed_linear(x, w) - expected
    assert error.abs().max() < 0.005 * x.abs().max() * unpack(w)[0].abs().max() * 96**0.5


def test_four_bits_are_better_than_rounding_to_the_largest() -> None:
    w = weight(64, 256)
    groups = w.view(64, 8, 32)
    largest = groups.gather(-1, groups.abs().argmax(-1, keepdim=True))
    scale = largest / -8
    rounded = ((groups / scale).round().clamp(-8, 7) * scale).view(64, 256)
    assert (unpack(pack(w, 4))[0] - w).square().mean() < 0.7 * (rounded - w).square().mean()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 5e5])
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("compiled", [True, False])
def test_what_cannot_be_quantized_is_refused(
    value: float, bits: packed.Bits, compiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packed, "available", lambda: compiled)
    w = weight(20, 64)
    w[13, 40] = value
    with pytest.raises(CheckpointError, match="cannot be quantized"):
        pack(w, bits)


def test_packing_into_a_slice_writes_nothing_else() -> None:
    blocks = torch.full(packed_shape((3, 16, 32), 4), 77, dtype=torch.uint8)
    pack_into(weight(16, 32), 4, blocks[1])
    assert (blocks[0::2] == 77).all()
    assert not (blocks[1] == 77).all()


@settings(max_examples=40, deadline=None)
@given(
    bits=st.sampled_from([4, 8]),
    outputs=st.integers(1, 50),
    groups=st.integers(1, 4),
    scale=st.floats(0.1, 1e3),
    seed=st.integers(0, 100),
)
def test_every_weight_lies_within_half_a_step(
    bits: packed.Bits, outputs: int, groups: int, scale: float, seed: int
) -> None:
    w = weight(outputs, groups * 32, seed=seed) * scale
    error = (unpack(pack(w, bits))[0] - w).view(outputs, groups, 32).abs().amax(-1)
    largest = w.view(outputs, groups, 32).abs().amax(-1)
    # the search may cut off the largest values, which costs them up to two steps
    assert (error <= largest * (0.25 if bits == 4 else 0.0045)).all()
