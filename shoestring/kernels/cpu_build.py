"""Compile kernels/cpu/*.cpp for this CPU on first use, cache the library, load it."""

import ctypes
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from shoestring.durable import cache_folder

log = logging.getLogger(__name__)

SOURCES = Path(__file__).parent / "cpu"
FLAGS = [
    *["-O3", "-march=native", "-std=c++17", "-fopenmp", "-Wno-psabi"],
    *["-fno-math-errno", "-fno-trapping-math"],  # vectors; NaN and infinity still count
]
DIGEST_BYTES = 32  # SHA-256
COMPILE_TIMEOUT_S = 300


@cache
def library() -> ctypes.CDLL | None:
    """The compiled kernels; None, with one warning, when there is no compiler or it failed."""
    compiler = os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        log.warning("no C++ compiler: CPU kernels run in plain PyTorch, about half as fast; install g++")
        return None
    try:
        return ctypes.CDLL(str(_compiled(compiler)))
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:  # RuntimeError: no home folder
        detail = getattr(error, "stderr", None) or str(error)
        log.warning("CPU kernels run in plain PyTorch, about half as fast: %s", str(detail).strip()[-500:])
        return None


def _compiled(compiler: str) -> Path:
    """Path of the shared library for these sources, flags, compiler and CPU; built if it is not there yet."""
    sources = sorted(SOURCES.glob("*.cpp"))
    version = _run([compiler, "--version"])
    parts = [path.read_text() for path in (*sources, *sorted(SOURCES.glob("*.h")))]
    key = "\0".join([*parts, *FLAGS, version, _cpu_features()])
    folder = cache_folder("kernels")
    target = folder / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.so"
    if _is_intact(target):
        return target
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    log.info("compiling the CPU kernels, once")
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        output = Path(scratch) / "kernels.so"
        _run([compiler, *FLAGS, "-shared", "-fPIC", *map(str, sources), "-o", str(output)])
        data = output.read_bytes()
        output.write_bytes(
            data + hashlib.sha256(data).digest()
        )  # loaders ignore bytes after the last section
        output.replace(target)
    return target


def _is_intact(path: Path) -> bool:
    """Return whether `path` is a library as it was compiled: loading a damaged one could end the process."""
    data = path.read_bytes() if path.exists() else b""
    return hashlib.sha256(data[:-DIGEST_BYTES]).digest() == data[-DIGEST_BYTES:]


def _run(command: list[str]) -> str:
    """A compiler's standard output. Raises OSError or SubprocessError."""
    return subprocess.run(
        command, capture_output=True, text=True, errors="replace", check=True, timeout=COMPILE_TIMEOUT_S
    ).stdout


def _cpu_features() -> str:
    """The CPU's instruction sets, on which -march=native depends."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() + platform.machine()
    return next((line for line in lines if line.startswith(("flags", "Features"))), platform.machine())
