"""Write files that survive a crash: fsync, rename, and a full disk told in one sentence."""

import contextlib
import errno
import os
import re
import shutil
from pathlib import Path

from shoestring.errors import StorageError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def write_atomic(path: Path, data: bytes) -> None:
    """Put `data` at `path` so that a crash leaves the old file or the new one, never a part.

    Raises StorageError when the disk is full or the folder cannot be written.
    """
    temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            file.write(data)
        sync(temporary)
        os.replace(temporary, path)
        sync(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise storage_error(error, path.parent, needed_bytes=len(data)) from error


def sync(path: Path) -> None:
    """Force a file's bytes, or a folder's entries, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def is_full(error: BaseException) -> bool:
    """Whether `error` says that there is no room; safetensors reports the code in its text only."""
    if isinstance(error, OSError):
        return error.errno in _FULL
    code = re.search(r"os error (\d+)", str(error))
    return code is not None and int(code[1]) in _FULL


def storage_error(error: BaseException, folder: Path, needed_bytes: int) -> StorageError:
    """The StorageError for a failed write in `folder`, with needed and free bytes when there is no room."""
    if not is_full(error):
        return StorageError(f"cannot write in {folder}: {error}; repair that or choose another --out")
    existing = next((p for p in (folder, *folder.parents) if p.exists()), Path("."))
    free = shutil.disk_usage(existing).free
    return StorageError(
        f"no room in {folder}: at least {needed_bytes:,} bytes needed, {free:,} free on that disk; "
        f"what was saved before is kept; make room, raise a quota or file size limit, or choose another --out"
    )
