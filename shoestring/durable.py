"""Files that survive a crash: fsync, rename, a clear error for a full disk; folders of cache and data."""

import errno
import os
import re
import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from shoestring.errors import StorageError

if sys.platform != "win32":  # which has no such locks: there nobody is kept out
    import fcntl

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NO_FOLDER_SYNC = (
    errno.EINVAL,
    errno.ENOTSUP,
    errno.EACCES,
)  # errors of file systems that cannot sync a folder


def write_atomic(path: Path, content: bytes | str) -> None:
    """Write `content` (text as UTF-8) to `path`; a crash leaves the old file or the new one, never a part.

    Raises StorageError when the disk is full or the folder cannot be written; then no part of a file remains.
    """
    data = content.encode() if isinstance(content, str) else content
    write_stream(path, lambda file: file.write(data), needed_bytes=len(data))


def write_stream(path: Path, write: Callable[[BinaryIO], object], *, needed_bytes: int) -> None:
    """Write content that is too large for memory as `write_atomic` does; `write` gets the open file."""
    with storage_errors(path, needed_bytes):
        _make_folder(path.parent)
        require_space(path, needed_bytes)
        temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}")
        try:
            with open(temporary, "wb") as file:
                write(file)
            sync(temporary)
            os.replace(temporary, path)
            sync(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def new_folder(target: Path, *, needed_bytes: int, leftovers: str | None = None) -> Iterator[Path]:
    """Yield a temporary folder beside `target`, which becomes `target` when the block ends without an error.

    Any exception, Ctrl-C included, removes it. If another process made `target` meanwhile, that one stays.
    Temporary folders of dead processes are removed first: names that match the pattern `leftovers` and end
    in a process id, by default those of this machine for this target. Raises StorageError for a full or
    unwritable disk.
    """
    mark = f"{target.name}.tmp-{socket.gethostname()}-"
    temporary = target.with_name(f"{mark}{os.getpid()}")
    try:
        _make_folder(target.parent)
        _remove_leftovers(target.parent, leftovers or re.escape(mark))
        temporary.mkdir()
        yield temporary
        _sync_tree(temporary)
        _rename(temporary, target)
        sync(target.parent)
    except Exception as error:
        if isinstance(error, OSError) or is_full(error):
            raise storage_error(error, target, max(needed_bytes, bytes_in(temporary))) from error
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def cache_folder(name: str) -> Path:
    """Folder `name` of the cache, for files that can be made or downloaded again; it may not exist.

    Raises RuntimeError where the user has no home folder.
    """
    return _home("XDG_CACHE_HOME", ".cache") / name


def data_folder(name: str) -> Path:
    """Folder `name` of the user's data, which nothing can make again; it may not exist.

    Raises RuntimeError where the user has no home folder.
    """
    return _home("XDG_DATA_HOME", ".local/share") / name


def _home(variable: str, default: str) -> Path:
    root = os.environ.get(variable)
    return (Path(root).expanduser() if root else Path.home() / default) / "shoestring"


def sync(path: Path) -> None:
    """Sync a file to the disk, or the entries of a folder where the file system supports it."""
    try:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC or not path.is_dir():
            raise


def bytes_in(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())


def require_space(path: Path, needed_bytes: int) -> None:
    """Raise StorageError when the disk of `path` has less than `needed_bytes` free."""
    if _free_bytes(path) < needed_bytes:
        raise storage_error(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), path, needed_bytes)


@contextmanager
def file_lock(path: Path, *, mode: int = 0o644) -> Iterator[int]:
    """Open a file, made with `mode` if there is none, and hold its lock; yields its handle.

    The system frees the lock when the process ends, however it does. Raises BlockingIOError when another
    process holds it, OSError for a file that cannot be opened.
    """
    handle = _locked(path, mode)
    while handle is None:
        handle = _locked(path, mode)
    try:
        yield handle
    finally:
        os.close(handle)


def _locked(path: Path, mode: int) -> int | None:
    """The handle of the locked file; None if it was removed before it was locked."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, mode)
    try:
        if sys.platform != "win32":
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.exists(path) and os.path.samestat(os.fstat(handle), os.stat(path)):
            return handle
    except BaseException:
        os.close(handle)
        raise
    os.close(handle)
    return None


def is_full(error: BaseException) -> bool:
    """Return whether `error` means a full disk; safetensors has the code only in its text."""
    if isinstance(error, OSError):
        return error.errno in _FULL
    code = re.search(r"os error (\d+)", str(error))
    return code is not None and int(code[1]) in _FULL


@contextmanager
def storage_errors(path: Path, needed_bytes: int) -> Iterator[None]:
    """Convert errors of the system about writing `path` to StorageError."""
    try:
        yield
    except OSError as error:
        raise storage_error(error, path, needed_bytes) from error


def storage_error(error: BaseException, path: Path, needed_bytes: int) -> StorageError:
    """StorageError for a failed write of `path`, with needed and free bytes for a full disk."""
    if not is_full(error):
        why = getattr(error, "strerror", None) or error
        return StorageError(f"cannot write {path}: {why}; correct this or choose another folder")
    return StorageError(
        f"no room for {path}: about {needed_bytes:,} bytes needed, {_free_bytes(path):,} free on that disk; "
        "earlier files are unchanged; free space, raise the quota or file size limit, or use another folder"
    )


def _free_bytes(path: Path) -> int:
    folder = next((p for p in (path, *path.parents) if p.exists()), Path("."))
    return shutil.disk_usage(folder).free


def _make_folder(folder: Path) -> None:
    if not folder.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        sync(folder.parent)


def _sync_tree(folder: Path) -> None:
    for parent, _, names in os.walk(folder):
        for name in names:
            sync(Path(parent, name))
        sync(Path(parent))


def _rename(temporary: Path, target: Path) -> None:
    try:
        os.rename(temporary, target)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):  # else another rank finished first
            raise


def _remove_leftovers(folder: Path, pattern: str) -> None:
    for path in folder.iterdir():
        match = re.fullmatch(rf"(?:{pattern})(\d+)", path.name)
        if match and _is_dead(int(match[1])):
            shutil.rmtree(path, ignore_errors=True)


def _is_dead(pid: int) -> bool:
    """Return whether the process is dead; this process's own id means an earlier process with the same id."""
    if pid == os.getpid():
        return True
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return True
    except PermissionError:
        return False
    return False
