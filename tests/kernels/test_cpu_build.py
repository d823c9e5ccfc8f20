"""Compiling on first use: whatever goes wrong there is said once, and the model computes the same without."""

import logging
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from shoestring.kernels import cpu_build, cpu_levels, ops
from shoestring.kernels.cpu_levels import Level
from shoestring.model.presets import PRESETS
from shoestring.model.transformer import Transformer, initialize
from tests.caches import made_once

TINY_SOURCE = 'extern "C" int answer() { return 42; }\n'


@pytest.fixture(autouse=True)
def unbuilt() -> Iterator[None]:
    """Nothing loaded or picked before, and nothing that this test did stays."""
    for cached in (cpu_build.library, ops.pick):
        cached.cache_clear()
    yield
    for cached in (cpu_build.library, ops.pick):
        cached.cache_clear()


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """One function instead of all kernels, and its own empty cache, which is returned."""
    sources = tmp_path / "sources"
    sources.mkdir()
    (sources / "answer.cpp").write_text(TINY_SOURCE)
    monkeypatch.setattr(cpu_build, "SOURCES", sources)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "shoestring" / "kernels"


def child() -> list[str]:
    """A command that builds or loads the library and prints its answer, without importing torch."""
    code = (
        "import importlib.util, pathlib\n"
        f"spec = importlib.util.spec_from_file_location('cpu_build', {cpu_build.__file__!r})\n"
        "module = importlib.util.module_from_spec(spec)\n"
        "spec.loader.exec_module(module)\n"
        f"module.SOURCES = pathlib.Path({str(cpu_build.SOURCES)!r})\n"
        "print(module.library().answer())"
    )
    return [sys.executable, "-c", code]


def built(folder: Path) -> Path:
    (path,) = folder.iterdir()
    return path


def answer() -> int:
    cpu_build.library.cache_clear()
    library = cpu_build.library()
    assert library is not None
    return library.answer()


def test_it_compiles_once(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert answer() == 42
    assert stat.S_IMODE(small.stat().st_mode) == 0o700
    compiled = []
    run = cpu_build._run
    monkeypatch.setattr(cpu_build, "_run", lambda command: compiled.append(command) or run(command))
    assert answer() == 42
    assert compiled == []  # nor does a start wait for the compiler to say its version


def test_another_compiler_compiles_again(
    small: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    compiler = tmp_path / "compiler"
    compiler.write_text(f'#!/bin/sh\nexec {shutil.which("c++")} "$@"\n')
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    assert answer() == 42
    os.utime(compiler, (1, 1))  # as an update does
    assert answer() == 42
    assert len(list(small.iterdir())) == 2


def test_other_sources_or_flags_are_compiled_again(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert answer() == 42
    (cpu_build.SOURCES / "answer.cpp").write_text(TINY_SOURCE.replace("42", "43"))
    assert answer() == 43
    monkeypatch.setattr(cpu_build, "FLAGS", [*cpu_build.FLAGS, "-g"])
    assert answer() == 43
    assert len(list(small.iterdir())) == 3


@pytest.mark.parametrize("damage", ["empty", "half", "text", "bit"])
def test_a_damaged_library_is_built_again(small: Path, damage: str) -> None:
    """In a child process, because loading a library that was cut short can end the one that tries."""
    assert answer() == 42
    data = built(small).read_bytes()
    flipped = data[:4000] + bytes([data[4000] ^ 1]) + data[4001:]
    spoiled = {"empty": b"", "half": data[: len(data) // 2], "text": b"not a library\n", "bit": flipped}
    path = built(small)
    path.unlink()  # this process still maps the old file
    path.write_bytes(spoiled[damage])
    done = subprocess.run(child(), capture_output=True, text=True, timeout=120)
    assert done.stdout == "42\n", done.stderr
    assert path.read_bytes() == data or cpu_build._is_intact(path)


def test_two_processes_compile_at_once(small: Path) -> None:
    running = [subprocess.Popen(child(), stdout=subprocess.PIPE, text=True) for _ in range(3)]
    assert [process.communicate(timeout=120)[0] for process in running] == ["42\n"] * 3
    assert cpu_build._is_intact(built(small))  # one file, no scratch folders


def no_compiler(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(folder))


def broken_source(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    (cpu_build.SOURCES / "broken.cpp").write_text("this is not C++\n")


def cache_is_a_file(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    (folder / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "file"))


def compiler_that_fails(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setenv("CXX", str(shutil.which("false")))


def compiler_that_is_missing(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setenv("CXX", str(folder / "no-such-compiler"))


def compiler_that_makes_nothing(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setenv("CXX", str(shutil.which("true")))


def compiler_that_hangs(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    script = folder / "slow"
    script.write_text('#!/bin/sh\n[ "$1" = --version ] || exec sleep 60\n')
    script.chmod(0o755)
    monkeypatch.setenv("CXX", str(script))
    monkeypatch.setattr(cpu_build, "COMPILE_TIMEOUT_S", 0.5)


def compiler_that_writes_garbage(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    script = folder / "garbage"
    script.write_text('#!/bin/sh\nfor last; do :; done\necho nonsense > "$last"\n')
    script.chmod(0o755)
    monkeypatch.setenv("CXX", str(script))


def homeless(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    def nobody() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", nobody)


TROUBLES = [
    no_compiler,
    broken_source,
    cache_is_a_file,
    compiler_that_fails,
    compiler_that_is_missing,
    compiler_that_makes_nothing,
    compiler_that_hangs,
    compiler_that_writes_garbage,
    homeless,
]


@pytest.mark.parametrize("trouble", TROUBLES)
def test_trouble_is_one_warning(
    small: Path, trouble, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trouble(monkeypatch, tmp_path)
    with caplog.at_level(logging.WARNING):
        assert [cpu_build.library() for _ in range(3)] == [None] * 3
    (message,) = caplog.messages
    assert "CPU kernels run in plain PyTorch" in message
    assert not [path for path in small.glob("*") if path.is_dir()]  # no scratch folder stays


@pytest.fixture
def prebuilt(small: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A wheel's library for the second best of two levels of this CPU; there is no compiler any more."""
    levels = [Level(name, "any", (), frozenset()) for name in ("best", "good")]
    monkeypatch.setattr(cpu_levels, "own_levels", lambda: levels)
    folder = tmp_path / "prebuilt"
    folder.mkdir()
    monkeypatch.setattr(cpu_build, "PREBUILT", folder)
    cpu_build.build(str(shutil.which("c++")), [], folder / "good.so")
    no_compiler(monkeypatch, tmp_path)
    return folder


def test_without_a_compiler_the_kernels_of_a_wheel_are_used(
    prebuilt: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert answer() == 42
    assert not caplog.records
    (prebuilt / "best.so").write_bytes(b"")  # damaged: the next level is used
    assert answer() == 42


def test_a_compiler_that_fails_is_no_obstacle(prebuilt: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "/bin/false")
    assert answer() == 42


@pytest.mark.parametrize("spoil", [lambda data: data[:-1], lambda data: b"x" + data[1:], lambda data: b""])
def test_damaged_kernels_of_a_wheel_are_not_loaded(prebuilt: Path, spoil) -> None:
    path = prebuilt / "good.so"
    path.write_bytes(spoil(path.read_bytes()))
    cpu_build.library.cache_clear()
    assert cpu_build.library() is None


def test_the_model_computes_the_same_without_a_compiler(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    model = initialize(Transformer(PRESETS["tiny"]), torch.Generator().manual_seed(0))
    ids = torch.arange(3, 63).view(2, 30)

    def logits_and_gradients() -> list[torch.Tensor]:
        logits = model(ids)
        return [
            logits.detach(),
            *torch.autograd.grad(logits.square().mean(), model.parameters(), allow_unused=True),
        ]

    fast = logits_and_gradients()
    assert ops.pick("swiglu", "cpu", torch.float32).__module__.endswith("cpu_fused")
    cpu_build.library.cache_clear()
    ops.pick.cache_clear()
    no_compiler(monkeypatch, tmp_path)
    plain = logits_and_gradients()
    assert ops.pick("swiglu", "cpu", torch.float32).__module__.endswith("reference")
    for a, b in zip(fast, plain, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


AVX2 = ["-mno-avx512f", "-mavx2", "-mfma"]
VNNI = ["-mavx512f", "-mavx512vl", "-mavx512vnni", "-mf16c", "-mfma"]
HEADERS = ("immintrin.h", "omp.h", "algorithm", "cmath", "cstring", "limits", "memory", "numeric", "vector")
"""Read once for all sources of a test, which is most of the work."""


@pytest.mark.skipif("x86" not in os.uname().machine, reason="these flags are of x86")
@pytest.mark.parametrize(
    "flags", [AVX2, [*AVX2, "-mf16c"], [*AVX2, "-mf16c", "-mavxvnni"], ["-mavx512f"], VNNI], ids=" ".join
)
def test_two_vector_widths_compile(tmp_path: Path, flags: list[str]) -> None:
    """The sources hold for CPUs without AVX-512, and with it, whatever this one has."""
    compiler = [os.environ.get("CXX", "c++"), "-std=c++17", "-fopenmp", "-Wno-psabi", *flags]

    def check(stamp: Path) -> None:
        before = tmp_path / "before.h"
        before.write_text("".join(f"#include <{header}>\n" for header in HEADERS))
        subprocess.run([*compiler, "-x", "c++-header", str(before), "-o", f"{before}.gch"], check=True)
        command = [*compiler, "-fsyntax-only", "-include", str(before)]
        sources = map(str, sorted(cpu_build.SOURCES.glob("*.cpp")))
        done = subprocess.run([*command, *sources], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        stamp.touch()

    made_once("compiles" + "".join(flags), compiler[:1], repr([compiler, HEADERS]).encode(), check)
