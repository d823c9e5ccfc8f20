import math

import pytest
import torch

from shoestring.low_precision.formats import (
    E2M1,
    E4M3,
    E5M6,
    pack_e2m1,
    quantize,
    round_e2m1,
    round_e4m3,
    round_e5m6,
    round_up,
    unpack_e2m1,
)


def numbers(exponent_bits: int, mantissa_bits: int, largest: float) -> torch.Tensor:
    """All numbers of at least 0 that a format has, in order: from its definition alone."""
    bias, steps = 2 ** (exponent_bits - 1) - 1, 2**mantissa_bits
    found = [0.0]
    for exponent in range(2**exponent_bits):
        for mantissa in range(steps):
            normal = math.ldexp(1 + mantissa / steps, exponent - bias)
            found.append(normal if exponent else math.ldexp(mantissa / steps, 1 - bias))
    return torch.tensor(sorted({value for value in found if value <= largest}), dtype=torch.float64)


def nearest(x: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """The nearest value by looking at all of them; of two equally near ones that of even place."""
    distance = (x.double().abs()[:, None] - values).abs()
    ties = distance == distance.amin(1, keepdim=True)
    even = torch.arange(len(values)) % 2 == 0
    place = (ties.int() * (1 + even.int())).argmax(1)
    return values[place].copysign(x.double()).float()


FORMATS = [
    (round_e4m3, numbers(4, 3, 448), 448.0),
    (round_e2m1, numbers(2, 1, 6), 6.0),
    (round_e5m6, numbers(5, 6, 65024), 65024.0),
]


@pytest.mark.parametrize(("rounded", "values", "largest"), FORMATS, ids=["e4m3", "e2m1", "e5m6"])
def test_rounding_is_to_the_nearest_number_of_the_format(rounded, values, largest):
    generator = torch.Generator().manual_seed(1)
    exact = values.float()
    middles = ((values[1:] + values[:-1]) / 2).float()
    spread = torch.rand(3000, generator=generator) * largest
    small = torch.rand(1000, generator=generator) * float(values[4])
    x = torch.cat((exact, middles, torch.nextafter(middles, torch.tensor(math.inf)), spread, small))
    if rounded is round_e5m6:
        x = x[(x == 0) | (x >= 2.0**-14)]  # below, TileKernels rounds otherwise: the next test
    x = torch.cat((x, -x))
    assert torch.equal(rounded(x), nearest(x, values))
    assert torch.equal(rounded(exact), exact)
    assert torch.equal(torch.signbit(rounded(x)), torch.signbit(x))


def test_small_numbers_of_e5m6_are_next_to_what_they_round():
    x = torch.arange(1, 4000) * 2.0**-26 * 1.37
    x = x[x < 2.0**-14]
    assert (round_e5m6(x) - x).abs().max() < 2.0**-20
    assert torch.equal(round_e5m6(x) * 2**20, (round_e5m6(x) * 2**20).round())


@pytest.mark.parametrize("kind", [E4M3, E5M6, E2M1], ids=["e4m3", "e5m6", "e2m1"])
@pytest.mark.parametrize("power_of_two", [False, True])
@pytest.mark.parametrize("size", [(1, 128), (128, 128), (128, 1), (32, 32)])
def test_each_block_has_a_scale_of_its_own(kind, power_of_two, size):
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(200, 300, generator=generator) * torch.logspace(-3, 3, 300)
    x[:32, :128] = 0
    blocks = quantize(x, kind, size, power_of_two=power_of_two)
    height, width = size
    for i in range(0, 200, height):
        for j in range(0, 300, width):
            block = x[i : i + height, j : j + width]
            largest = max(float(block.abs().max()), kind.least)
            scale = torch.tensor(largest) / torch.tensor(kind.largest)
            if power_of_two:
                scale = torch.tensor(2.0 ** math.ceil(math.log2(float(scale))))
                inverse = 1 / scale
            else:
                inverse = torch.tensor(kind.largest) / torch.tensor(largest)
            assert blocks.scales[i // height, j // width] == scale
            expected = kind.round((block * inverse).clamp(-kind.largest, kind.largest))
            assert torch.equal(blocks.values[i : i + height, j : j + width], expected)
    assert not blocks.dequantize()[:32, :128].any()


def test_scales_that_are_powers_of_two_lose_nothing_the_second_time():
    x = torch.randn(256, 256, generator=torch.Generator().manual_seed(3))
    once = quantize(x, E4M3, (1, 128), power_of_two=True).dequantize()
    assert torch.equal(quantize(once, E4M3, (1, 128), power_of_two=True).dequantize(), once)


def test_scales_are_rounded_up_to_powers_of_two():
    x = torch.tensor([1.0, 1.0000001, 0.75, 3.0, 2.0**-100])
    assert round_up(x).tolist() == [1.0, 2.0, 1.0, 4.0, 2.0**-100]


def test_four_bit_values_are_packed_low_nibble_first():
    values = torch.tensor([[0.5, -6.0, 0.0, 3.0]])
    assert pack_e2m1(values).tolist() == [[0x1 | 0xF << 4, 0x0 | 0x5 << 4]]
    assert torch.equal(unpack_e2m1(pack_e2m1(values)), values)
    every = torch.tensor([[code for byte in range(256) for code in (byte,)]], dtype=torch.uint8)
    assert torch.equal(pack_e2m1(unpack_e2m1(every)), every)
