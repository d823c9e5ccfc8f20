"""Device, precision, rank and threads: decided once, then passed."""

import ctypes
import logging
import os
import platform
import time
from dataclasses import dataclass

import torch

from shoestring.errors import ConfigError, MissingDependencyError

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """Where a program computes, and how exactly."""

    device: torch.device
    compute_dtype: torch.dtype
    """Precision of activations: float32 on CPU, bfloat16 on GPU. Parameters and moments stay float32."""
    rank: int = 0
    world_size: int = 1


def choose(name: str = "auto", *, threads: int | None = None) -> Runtime:
    """The runtime for `cpu`, `cuda` or `auto`; sets the process's threads and allocator once, here."""
    if name not in ("auto", "cpu", "cuda"):
        raise ConfigError(f"no device {name!r}; there are auto, cpu and cuda")
    has_gpu = torch.cuda.is_available()
    if name == "cuda" and not has_gpu:
        raise MissingDependencyError(
            "no CUDA GPU that this PyTorch can use; take --device cpu, or run `shoestring doctor`"
        )
    rank, world_size = _count("RANK", 0), _count("WORLD_SIZE", 1)
    if threads is not None:
        if threads < 1:
            raise ConfigError(f"threads = {threads} must be at least 1")
        torch.set_num_threads(threads)
    torch.set_flush_denormal(True)  # denormal numbers cost 100 cycles each on CPUs and mean nothing here
    _keep_freed_memory()
    if has_gpu and name != "cpu":
        device = torch.device("cuda", _count("LOCAL_RANK", 0))
        return Runtime(device=device, compute_dtype=torch.bfloat16, rank=rank, world_size=world_size)
    return Runtime(device=torch.device("cpu"), compute_dtype=torch.float32, rank=rank, world_size=world_size)


def _count(name: str, default: int) -> int:
    """What torchrun says in an environment variable."""
    text = os.environ.get(name, str(default))
    if not text.isdecimal():
        raise ConfigError(f"{name} = {text!r} in the environment is not a number; unset it, or use torchrun")
    return int(text)


def _keep_freed_memory() -> None:
    """Ask glibc to reuse large blocks: a fresh one costs a page fault per 4 KiB, all over every step."""
    if platform.system() != "Linux" or platform.libc_ver()[0] != "glibc":
        return
    mmap_threshold, trim_threshold = -3, -1  # M_MMAP_THRESHOLD, M_TRIM_THRESHOLD of malloc.h
    libc = ctypes.CDLL(None)
    libc.mallopt(mmap_threshold, 1 << 30)
    libc.mallopt(trim_threshold, (1 << 31) - 1)


def measure_peak(runtime: Runtime, seconds: float = 0.4) -> float:
    """FLOP/s of this machine's best matrix product in the compute precision, measured now."""
    size = 1536 if runtime.device.type == "cpu" else 8192
    a, b = (torch.randn(size, size, device=runtime.device, dtype=runtime.compute_dtype) for _ in range(2))
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end or best == float("inf"):
        start = time.perf_counter()
        a @ b
        synchronize(runtime.device)
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best


def synchronize(device: torch.device) -> None:
    """Wait until the device has done all it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
