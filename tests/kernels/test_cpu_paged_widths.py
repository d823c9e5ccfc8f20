"""Attention over pages as other kinds of CPUs run it: the same bits without AMX, the same values with it."""

import ctypes
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from torch import Tensor

from shoestring.kernels import cpu_build, cpu_paged

KINDS = {
    "x86-64-v3": {"avx2", "fma"},
    "x86-64-v4": {"avx512f", "avx512bw", "avx512vl"},
}
"""Kinds of CPUs, and what this one must have to run their code."""
SPANS = ((700, 40), (300, 1))
"""Tokens of each sequence, and new ones among them."""


@pytest.fixture(scope="module", params=sorted(KINDS))
def other(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """The kernels of attention over pages, compiled for another kind of CPU."""
    if not KINDS[request.param] <= set(cpu_build._cpu_features().split()):
        pytest.skip(f"this CPU cannot run the code of {request.param}")
    target = tmp_path_factory.mktemp("kernels") / "paged.so"
    source, compiler = str(cpu_build.SOURCES / "paged.cpp"), shutil.which("g++") or "c++"
    options = [*cpu_build.FLAGS, f"-march={request.param}", "-shared", "-fPIC"]
    subprocess.run([compiler, *options, source, "-o", str(target)], check=True)
    return ctypes.CDLL(str(Path(target)))


def random(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def where() -> list[Tensor]:
    """Tables, sequences and lengths of SPANS, on pages of 32."""
    tables = torch.arange(64, dtype=torch.int32).view(2, 32)
    sequence = torch.tensor([0] * SPANS[0][1] + [1] * SPANS[1][1], dtype=torch.int32)
    lengths = torch.cat([torch.arange(total - new + 1, total + 1) for total, new in SPANS])
    return [tables, sequence, lengths.to(torch.int32)]


def call(library: ctypes.CDLL, name: str, sizes: list[int], operands: list[Tensor], out: Tensor) -> Tensor:
    """A function of another library."""
    addresses = [ctypes.c_void_p(x.data_ptr()) for x in operands]
    scale = ctypes.c_float(0.1)
    getattr(library, name)(*map(ctypes.c_int64, sizes), *addresses, scale, ctypes.c_void_p(out.data_ptr()))
    return out


@pytest.mark.parametrize("heads", [4, 16])
def test_latents(other: ctypes.CDLL, heads: int) -> None:
    """Fewer than 8 heads never run on the matrix unit."""
    operands = [random(41, heads, 64, seed=1), random(41, heads, 16, seed=2)]
    operands += [random(64, 32, 64, seed=3), random(64, 32, 16, seed=4), *where()]
    expected = cpu_paged.paged_latent_attention(*operands, 0.1)
    got = call(other, "paged_latent", [41, heads, 64, 16, 32, 32], operands, torch.empty(41, heads, 64))
    if heads < 8:
        assert torch.equal(got, expected)
    torch.testing.assert_close(got, expected, rtol=0, atol=3e-6)


def test_heads(other: ctypes.CDLL) -> None:
    kept = [random(64, 32, 2, 40, seed=2), random(64, 32, 2, 40, seed=3)]
    operands = [random(41, 6, 40, seed=1), *kept, *where()]
    expected = cpu_paged.paged_attention(*operands, 0.1)
    got = call(other, "paged_heads", [41, 6, 2, 40, 40, 32, 32], operands, torch.empty(41, 6, 40))
    assert torch.equal(got, expected)
