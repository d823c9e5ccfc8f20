"""Caches: a test's own, with everybody's compiled kernels, and what tests make of the same sources."""

import hashlib
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from shoestring.durable import cache_folder
from shoestring.kernels import cpu_build


def own_cache(folder: Path) -> str:
    """Make a cache in a folder, for XDG_CACHE_HOME."""
    own = folder / "shoestring" / "kernels"
    if not own.is_symlink():
        kernels = cache_folder("kernels")
        kernels.mkdir(parents=True, exist_ok=True)
        own.parent.mkdir(parents=True)
        own.symlink_to(kernels)
    return str(folder)


def made_once(name: str, tools: Sequence[str], key: bytes, make: Callable[[Path], object]) -> Path:
    """The file that `make` makes of the kernels' sources; it stays between runs.

    It is made again when `key`, a tool (a compiler, an emulator) or a source has changed.
    """
    digest = hashlib.sha256(key)
    for path in sorted(path for path in cpu_build.SOURCES.rglob("*") if path.is_file()):
        digest.update(path.read_bytes())
    digest.update("".join(map(cpu_build._identity, tools)).encode())
    folder = cache_folder("tests")
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    target = folder / f"{name}.{digest.hexdigest()[:24]}"
    if not target.exists():
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            output = Path(scratch) / "output"
            make(output)
            output.replace(target)
        for old in folder.glob(f"{name}.*"):
            if old != target:
                old.unlink(missing_ok=True)
    return target
