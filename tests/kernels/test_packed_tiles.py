"""Tiles of packed products: any number of rows and groups, and any width of vectors, give the same bits."""

import ctypes
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from torch import Tensor

from shoestring.kernels import cpu_build, cpu_rows
from shoestring.kernels.packed import Packed, pack, unpack
from tests.caches import made_once

ROWS = [*range(1, 41), 95, 96, 97, 103, 112, 131]
NARROWER = {
    "x86-64-v3": {"avx2", "fma", "f16c"},
    "x86-64-v4": {"avx512f", "avx512bw", "avx512vl"},
    "icelake-server": {"avx512f", "avx512bw", "avx512vl", "avx512_vnni"},
    "alderlake": {"avx2", "fma", "f16c", "avx_vnni"},
}
"""Kinds of CPUs, and what this one must have to run their code."""


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("groups", [1, 2, 3, 8])
@pytest.mark.parametrize("bits", [4, 8, 32])
def test_a_row_has_the_same_bits_beside_any_number_of_others(bits: int, groups: int) -> None:
    w = pack(random(5 * 16 + 3, groups * 32), bits)
    x = random(max(ROWS), groups * 32, seed=1)
    alone = torch.cat([cpu_rows.packed_linear(row[None], w) for row in x])
    for rows in ROWS:
        assert torch.equal(cpu_rows.packed_linear(x[:rows], w), alone[:rows]), rows


@pytest.mark.parametrize("bits", [4, 8, 32])
@pytest.mark.parametrize("rows", [3, 7, 40])
def test_the_largest_integers_are_summed_exactly(bits: int, rows: int) -> None:
    """Weights and activations at both ends of their range."""
    w = (torch.arange(16 * 64).reshape(16, 64) % 2 * 2.0 - 1) * 127
    w[::2] = 127
    x = (random(rows, 64) > 0) * 2.0 - 1
    packed = pack(w, bits)
    got, expected = cpu_rows.packed_linear(x, packed), x @ unpack(packed)[0].T
    assert torch.allclose(got, expected, rtol=1e-5, atol=1e-2)


def flags() -> set[str]:
    return set(cpu_build._cpu_features().split())


@pytest.fixture(scope="module", params=sorted(NARROWER))
def narrower(request: pytest.FixtureRequest) -> ctypes.CDLL:
    """The packed products as another kind of CPU runs them."""
    if not NARROWER[request.param] <= flags():
        pytest.skip(f"this CPU cannot run the code of {request.param}")
    sources = [str(cpu_build.SOURCES / name) for name in ("packed.cpp", "pack.cpp")]
    compiler = shutil.which("g++") or "c++"
    options = ["-O1", f"-march={request.param}", "-std=c++17", "-fopenmp", "-Wno-psabi", "-shared", "-fPIC"]
    command = [compiler, *options, *sources, "-o"]

    def build(target: Path) -> None:
        subprocess.run([*command, str(target)], check=True)

    return ctypes.CDLL(str(made_once(f"packed-{request.param}", [compiler], repr(command).encode(), build)))


def product_of(library: ctypes.CDLL, x: Tensor, w: Packed) -> Tensor:
    """packed_linear of another library."""
    y = torch.empty(len(x), w.outputs)
    sizes = [ctypes.c_int64(n) for n in (w.bits, 1, len(x), w.depth, w.outputs)]
    rows = [ctypes.c_int64(n) for n in (0, w.depth)]
    address = [ctypes.c_void_p(t.data_ptr()) for t in (x, w.blocks, y)]
    strides = [ctypes.c_int64(n) for n in (0, w.outputs)]
    library.packed_linear(*sizes, address[0], *rows, address[1], None, address[2], *strides)
    return y


def test_narrower_vectors_give_the_same_bits(narrower: ctypes.CDLL) -> None:
    for bits in (4, 8, 32):
        w = pack(random(70, 5 * 32), bits)
        for rows in (1, 2, 5, 6, 7, 16, 23, 100):
            x = random(rows, w.depth, seed=rows)
            assert torch.equal(product_of(narrower, x, w), cpu_rows.packed_linear(x, w)), (bits, rows)
