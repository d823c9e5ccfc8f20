"""The start of a command: PyTorch's library is read beside the other imports, and modules are kept."""

import ctypes
import gc
import importlib.util
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

VERBS = ("run", "serve", "demo", "eval")
"""Commands that always need PyTorch."""
LIBRARIES = {"libtorch_global_deps.so": ctypes.RTLD_GLOBAL, "libtorch_cpu.so": ctypes.RTLD_LOCAL}
"""The files that `import torch` loads first, with their modes."""


def read_torch(arguments: list[str]) -> threading.Thread | None:
    """Load PyTorch's library in a thread, if the command needs it; returns the thread.

    That takes 0.25 s, most of it in the kernel, while this thread imports a quarter of a second of other
    modules. Only Linux's build for CPUs: others choose among several libraries first.
    """
    if sys.platform != "linux" or arguments[:1] not in [[verb] for verb in VERBS] or "--help" in arguments:
        return None
    spec = importlib.util.find_spec("torch")  # which imports nothing
    folder = Path(spec.origin or "").parent / "lib" if spec else Path()
    if (folder / "libtorch_cuda.so").exists() or not all((folder / name).is_file() for name in LIBRARIES):
        return None
    thread = threading.Thread(target=_load, args=(folder,), daemon=True)
    thread.start()
    return thread


def _load(folder: Path) -> None:
    """Call dlopen itself: ctypes.CDLL would keep the other threads waiting. torch reports what fails."""
    dlopen = ctypes.CDLL(None).dlopen
    dlopen.restype = ctypes.c_void_p
    for name, mode in LIBRARIES.items():
        dlopen(os.fsencode(folder / name), ctypes.c_int(os.RTLD_NOW | mode))


@contextmanager
def modules_kept() -> Iterator[None]:
    """Do not search for unused objects while modules are imported, nor ever again among what they made."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
