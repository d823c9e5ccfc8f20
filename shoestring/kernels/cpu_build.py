"""Compile kernels/cpu/*.cpp for this CPU on first use, keep the result, load it."""

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

log = logging.getLogger(__name__)

SOURCES = Path(__file__).parent / "cpu"
FLAGS = ["-O3", "-march=native", "-std=c++17", "-fno-math-errno", "-fno-trapping-math", "-Wno-psabi", "-fopenmp"]


@cache
def library() -> ctypes.CDLL | None:
    """The compiled kernels, or None (announced once) when there is no compiler or it failed."""
    compiler = os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        log.warning("no C++ compiler: CPU kernels run in plain PyTorch, about half as fast; install g++")
        return None
    try:
        return ctypes.CDLL(str(_compiled(compiler)))
    except (OSError, subprocess.SubprocessError) as error:
        detail = getattr(error, "stderr", "") or str(error)
        log.warning("CPU kernels run in plain PyTorch, about half as fast: %s", detail.strip()[-500:])
        return None


def _compiled(compiler: str) -> Path:
    """Path of the shared library for these sources, flags, compiler and CPU; built if it is not there yet."""
    sources = sorted(SOURCES.glob("*.cpp"))
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=True).stdout
    parts = [path.read_text() for path in (*sources, *sorted(SOURCES.glob("*.h")))]
    key = "\0".join([*parts, *FLAGS, version, _cpu_features()])
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "shoestring" / "kernels"
    target = folder / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.so"
    if target.exists():
        return target
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    log.info("compiling the CPU kernels, once")
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        built = Path(scratch) / "kernels.so"
        command = [compiler, *FLAGS, "-shared", "-fPIC", *map(str, sources), "-o", str(built)]
        subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
        built.replace(target)
    return target


def _cpu_features() -> str:
    """What -march=native depends on."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() + platform.machine()
    return next((line for line in lines if line.startswith(("flags", "Features"))), platform.machine())
