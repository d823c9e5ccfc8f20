"""Write a file whole or not at all, and say in one sentence when the disk is full."""

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from shoestring.errors import StorageError


def write_text_atomically(path: Path, text: str) -> None:
    """Write UTF-8 text. Raises StorageError."""
    data = text.encode()
    write_atomically(path, lambda file: file.write(data), needed_bytes=len(data))


def write_atomically(path: Path, write: Callable[[BinaryIO], object], *, needed_bytes: int) -> None:
    """Run `write` on a temporary file, flush it to the disk, then give it its name.

    Raises StorageError when the disk is full or the folder cannot be written; nothing is left behind then.
    """
    with storage_errors(path, needed_bytes):
        path.parent.mkdir(parents=True, exist_ok=True)
        require_space(path, needed_bytes)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            with temporary.open("wb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
            sync_folder(path.parent)
        finally:
            with suppress(FileNotFoundError):
                temporary.unlink()


def require_space(path: Path, needed_bytes: int) -> None:
    """Raise StorageError when the disk of `path`, whose folder exists, cannot take `needed_bytes` more."""
    with storage_errors(path, needed_bytes):
        if shutil.disk_usage(path.parent).free < needed_bytes:
            raise OSError(errno.ENOSPC, "no space left on device")


@contextmanager
def storage_errors(path: Path, needed_bytes: int) -> Iterator[None]:
    """Turn the system's errors about writing `path` into one StorageError sentence."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise StorageError(
                f"cannot write {path}: {error.strerror or error}; choose another folder"
            ) from error
        nearest = next((p for p in path.parents if p.exists()), Path("/"))
        free = shutil.disk_usage(nearest).free
        raise StorageError(
            f"the disk is full: {path} needs {needed_bytes:,} bytes and {free:,} are free; "
            "make room or choose another folder"
        ) from error


def sync_folder(folder: Path) -> None:
    """Make renames in `folder` survive a power cut (needed on Linux; other systems refuse or ignore it)."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
