"""The library of kernels/cpu/*.cpp: compiled for this CPU on first use, or else that of a wheel."""

import ctypes
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

from shoestring.durable import cache_folder

log = logging.getLogger(__name__)

SOURCES = Path(__file__).parent / "cpu"
PREBUILT = Path(__file__).parent / "prebuilt"
FLAGS = [
    *["-O3", "-std=c++17", "-fopenmp", "-Wno-psabi"],
    *["-fno-math-errno", "-fno-trapping-math"],  # vectors; NaN and infinity still count
]
NATIVE = ["-march=native"]
COMPILERS = ("c++", "g++", "clang++")
DIGEST_BYTES = 32  # SHA-256
COMPILE_TIMEOUT_S = 900
"""Far more than the half minute of a quiet machine: on a busy one the way back is half as fast for good."""


@cache
def library() -> ctypes.CDLL | None:
    """The kernels, compiled for this CPU or else a wheel's; None, with one warning, without either."""
    compiler = os.environ.get("CXX") or next(filter(None, map(shutil.which, COMPILERS)), None)
    trouble = "no C++ compiler; install g++"
    if compiler is not None:
        try:
            return ctypes.CDLL(str(_compiled(compiler)))
        except (OSError, RuntimeError, subprocess.SubprocessError) as error:  # RuntimeError: no home folder
            trouble = str(getattr(error, "stderr", None) or error).strip()[-500:]
    from shoestring.kernels.cpu_levels import own_levels  # not where a wheel is built: there is no PyTorch

    for level in own_levels():
        path = PREBUILT / f"{level.name}.so"
        try:
            if _is_intact(path):
                kernels = ctypes.CDLL(str(path))
                log.info("CPU kernels for %s: %s", level.name, trouble)
                return kernels
        except OSError as error:
            trouble = str(error)
    log.warning("CPU kernels run in plain PyTorch, about half as fast: %s", trouble)
    return None


def _compiled(compiler: str) -> Path:
    """Path of the shared library for these sources, flags, compiler and CPU; built if it is not there yet."""
    parts = [path.read_text() for path in (*_sources(), *sorted(SOURCES.rglob("*.h")))]
    key = "\0".join([*parts, *FLAGS, *NATIVE, _identity(compiler), _cpu_features()])
    folder = cache_folder("kernels")
    target = folder / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.so"
    if not _is_intact(target):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        log.info("compiling the CPU kernels, once")
        build(compiler, NATIVE, target)
    return target


def build(compiler: str, flags: Sequence[str], target: Path, linked: Sequence[str] = ("-fopenmp",)) -> None:
    """Compile the kernels to `target`, which ends with its hash: loaders ignore what follows a library."""
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        scratch = Path(folder)
        objects = [scratch / f"{source.stem}.o" for source in _sources()]
        commands = [
            [compiler, *FLAGS, *flags, "-fPIC", "-c", str(source), "-o", str(output)]
            for source, output in zip(_sources(), objects, strict=True)
        ]
        with ThreadPoolExecutor(os.cpu_count()) as threads:
            list(threads.map(_run, commands))
        output = scratch / "kernels.so"
        _run([compiler, "-shared", *map(str, objects), *linked, "-o", str(output)])
        data = output.read_bytes()
        output.write_bytes(data + hashlib.sha256(data).digest())
        output.replace(target)


def _sources() -> list[Path]:
    return sorted(SOURCES.glob("*.cpp"))


def _is_intact(path: Path) -> bool:
    """Return whether `path` is a library as it was compiled: loading a damaged one could end the process."""
    data = path.read_bytes() if path.exists() else b""
    return hashlib.sha256(data[:-DIGEST_BYTES]).digest() == data[-DIGEST_BYTES:]


def _run(command: list[str]) -> None:
    """Compile. Raises OSError or SubprocessError."""
    subprocess.run(
        command, capture_output=True, text=True, errors="replace", check=True, timeout=COMPILE_TIMEOUT_S
    )


def _identity(compiler: str) -> str:
    """A compiler without running it, which every start would wait for: its path, size and time."""
    path = os.path.realpath(shutil.which(compiler) or compiler)
    status = os.stat(path)
    return f"{path} {status.st_size} {status.st_mtime_ns}"


def _cpu_features() -> str:
    """The CPU's instruction sets, on which -march=native depends."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() + platform.machine()
    return next((line for line in lines if line.startswith(("flags", "Features"))), platform.machine())
