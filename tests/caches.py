"""Caches of a test's own, with everybody's compiled kernels: to compile them takes half a minute."""

from pathlib import Path

from shoestring.durable import cache_folder


def own_cache(folder: Path) -> str:
    """Make a cache in a folder, for XDG_CACHE_HOME."""
    own = folder / "shoestring" / "kernels"
    if not own.is_symlink():
        kernels = cache_folder("kernels")
        kernels.mkdir(parents=True, exist_ok=True)
        own.parent.mkdir(parents=True)
        own.symlink_to(kernels)
    return str(folder)
