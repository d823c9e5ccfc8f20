"""Choice of device, precision, rank and threads, made once per process."""

import contextlib
import ctypes
import gc
import mmap
import os
import platform
import time
from dataclasses import dataclass

import torch

from shoestring.errors import ConfigError, MissingDependencyError


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """Device, precision of activations, and rank of this process."""

    device: torch.device
    compute_dtype: torch.dtype
    """Precision of activations: float32 on CPU, bfloat16 on GPU. Parameters and moments stay float32."""
    rank: int = 0
    world_size: int = 1


def choose(name: str = "auto", *, threads: int | None = None) -> Runtime:
    """Choose the runtime for `cpu`, `cuda` or `auto`; also sets threads and allocator of the process."""
    if name not in ("auto", "cpu", "cuda"):
        raise ConfigError(f"there is no device {name!r}; use auto, cpu or cuda")
    has_gpu = torch.cuda.is_available()
    if name == "cuda" and not has_gpu:
        raise MissingDependencyError(
            "there is no CUDA GPU that this PyTorch can use; use --device cpu, or run `shoestring doctor`"
        )
    rank, world_size = _count("RANK", 0), _count("WORLD_SIZE", 1)
    if threads is not None:
        if threads < 1:
            raise ConfigError(f"threads = {threads} must be at least 1")
        torch.set_num_threads(threads)
    torch.set_flush_denormal(True)  # each denormal number costs 100 CPU cycles and changes no result here
    _keep_freed_memory()
    if has_gpu and name != "cpu":
        device = torch.device("cuda", _count("LOCAL_RANK", 0))
        return Runtime(device=device, compute_dtype=torch.bfloat16, rank=rank, world_size=world_size)
    return Runtime(device=torch.device("cpu"), compute_dtype=torch.float32, rank=rank, world_size=world_size)


def _count(name: str, default: int) -> int:
    """Number in an environment variable that torchrun sets."""
    text = os.environ.get(name, str(default))
    if not text.isdecimal():
        raise ConfigError(f"{name} = {text!r} in the environment is not a number; unset it, or use torchrun")
    return int(text)


def _keep_freed_memory() -> None:
    """Make glibc reuse large blocks: a new one costs a page fault per 4 KiB, in every step."""
    if platform.system() != "Linux" or platform.libc_ver()[0] != "glibc":
        return
    mmap_threshold, trim_threshold = -3, -1  # M_MMAP_THRESHOLD, M_TRIM_THRESHOLD of malloc.h
    libc = ctypes.CDLL(None)
    libc.mallopt(mmap_threshold, 1 << 30)
    libc.mallopt(trim_threshold, (1 << 31) - 1)


def return_freed_memory() -> None:
    """Give freed memory back to the system, which glibc keeps; after a large model was dropped."""
    gc.collect()
    if platform.system() == "Linux" and platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)


def host_memory(num_bytes: int, *, huge_pages: bool = False) -> mmap.mmap:
    """Zeros that take no memory before they are written; those of torch.zeros do.

    `huge_pages` is for what is read from end to end, such as weights: with small ones a core spends a third
    of the time on addresses. Linux alone has them.
    """
    pages = mmap.mmap(-1, num_bytes, access=mmap.ACCESS_COPY)
    if huge_pages and hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):  # a kernel without them
            pages.madvise(mmap.MADV_HUGEPAGE)
    return pages


PEAK_S = 0.4
PEAK_SIZE = {"cpu": 1536, "cuda": 8192}
"""Rows of the matrices that measure_peak multiplies, and how long."""
FEWEST_PRODUCTS = 5
"""The first may take a hundred times as long as the others, on a machine that is busy."""


def measure_peak(runtime: Runtime) -> float:
    """Measure the FLOP/s of a large matrix product in the compute precision."""
    size = PEAK_SIZE[runtime.device.type]
    a, b = (torch.randn(size, size, device=runtime.device, dtype=runtime.compute_dtype) for _ in range(2))
    best, count, end = float("inf"), 0, time.perf_counter() + PEAK_S
    while time.perf_counter() < end or count < FEWEST_PRODUCTS:
        count += 1
        start = time.perf_counter()
        a @ b
        synchronize(runtime.device)
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best


def synchronize(device: torch.device) -> None:
    """Wait until the device has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
