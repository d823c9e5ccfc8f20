"""Kernels on ARM: NEON's products are those of plain loops and of this machine's kernels, to the bit.

They are compiled by Debian's g++-aarch64-linux-gnu and run by qemu-user.
"""

import shutil
import struct
import subprocess
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor

from shoestring.kernels import cpu_build, cpu_rows
from shoestring.kernels.cpu_levels import LEVELS, Level
from shoestring.kernels.packed import available, pack, packed_shape
from tests.caches import made_once

COMPILER = shutil.which("aarch64-linux-gnu-g++")
EMULATOR = shutil.which("qemu-aarch64")
PROGRAM = Path(__file__).parent / "packed_neon.cpp"
CPUS = {"armv8": "cortex-a53", "armv8.2-dotprod": "cortex-a76"}
"""CPUs that have no more than a level needs."""
ROWS = (1, 2, 3, 4, 5, 7, 20)

pytestmark = [
    pytest.mark.skipif(COMPILER is None, reason="there is no aarch64-linux-gnu-g++ (g++-aarch64-linux-gnu)"),
    pytest.mark.skipif(EMULATOR is None, reason="there is no qemu-aarch64 (qemu-user)"),
]
Case = tuple[int, Tensor, Tensor]


def cases() -> list[Case]:
    """Numbers of bits, activations and weights: each number of rows, and values at both ends of the range."""
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    found: list[Case] = []
    for bits in (4, 8, 32):
        found += [(bits, random(rows, 96), random(70, 96)) for rows in ROWS]
        signs, weights = (
            (random(5, 64) > 0) * 2.0 - 1,
            (torch.arange(16 * 64).view(16, 64) % 2 * 2.0 - 1) * 127,
        )
        found += [(bits, signs, weights), (bits, signs, weights.abs()), (bits, signs * 0, random(16, 64))]
    return found


def compile_for_arm(*arguments: str) -> None:
    command = [str(COMPILER), "-std=c++17", "-fopenmp", "-Wno-psabi", *arguments]
    subprocess.run(command, check=True, capture_output=True, text=True)


def result(level: Level, folder: Path) -> bytes:
    """The results of a level of ARM, which are those of plain loops."""
    sources = [*(cpu_build.SOURCES / name for name in ("packed.cpp", "pack.cpp")), PROGRAM]
    options = ["-O2", *level.flags, "-static"]
    program, given = folder / level.name, folder / "cases"

    def run(products: Path) -> None:
        compile_for_arm(*options, *map(str, sources), "-o", str(program))
        command = [EMULATOR, "-cpu", CPUS[level.name], program, given, products]
        done = subprocess.run([*map(str, command)], capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (0, "0 products differ from plain loops\n"), done

    tools = [str(COMPILER), str(EMULATOR)]
    key = repr([options, CPUS[level.name]]).encode() + PROGRAM.read_bytes() + given.read_bytes()
    return made_once(f"products-{level.name}", tools, key, run).read_bytes()


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The results of every level."""
    folder = tmp_path_factory.mktemp("neon")
    with open(folder / "cases", "wb") as file:
        for bits, x, w in cases():
            file.write(struct.pack("5q", bits, *x.shape, len(w), 0))
            file.write(x.numpy().tobytes() + w.numpy().tobytes())
    levels = [level for level in LEVELS if level.machine == "aarch64"]
    with ThreadPoolExecutor() as threads:
        found = threads.map(partial(result, folder=folder), levels)
        return dict(zip([level.name for level in levels], found, strict=True))


def test_neon_gives_the_bits_of_plain_loops_on_every_level(results: dict[str, bytes]) -> None:
    assert results.keys() == CPUS.keys()
    assert len(set(results.values())) == 1


@pytest.mark.skipif(not available(), reason="this machine has no kernels of its own to compare with")
def test_neon_gives_the_bits_of_this_machine(results: dict[str, bytes]) -> None:
    """Packed weights are the same on both, and products of them too."""
    data = results["armv8"]
    for bits, x, w in cases():
        packed, size = pack(w, bits), torch.Size(packed_shape(tuple(w.shape), bits)).numel()
        assert packed.blocks.numpy().tobytes() == data[:size], (bits, x.shape)
        y, data = data[size : size + 4 * len(x) * len(w)], data[size + 4 * len(x) * len(w) :]
        assert cpu_rows.packed_linear(x, packed).numpy().tobytes() == y, (bits, x.shape)
    assert data == b""


def test_all_kernels_compile_for_arm() -> None:
    def check(stamp: Path) -> None:
        compile_for_arm("-fsyntax-only", *map(str, sorted(cpu_build.SOURCES.glob("*.cpp"))))
        stamp.touch()

    made_once("compiles-for-arm", [str(COMPILER)], b"", check)
