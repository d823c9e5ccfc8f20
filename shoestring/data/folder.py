"""Folders that are whole or absent: written aside, hashed, synced, renamed, and verified when opened."""

import hashlib
import json
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from shoestring.errors import DataError, StorageError

MANIFEST = "manifest.json"


def sha256_of(path: Path) -> str:
    """Hex SHA-256 of a file; raises OSError."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def new_folder(target: Path, *, need_bytes: int) -> Iterator[Path]:
    """Yield a temporary folder beside `target`; when the block ends well it is synced and becomes `target`.

    Any exception, Ctrl-C included, removes it. If another process made `target` meanwhile, theirs stays.
    `need_bytes` is what the caller expects to write. Raises StorageError for a full or unwritable disk.
    """
    partial = target.with_name(f"{target.name}.partial-{socket.gethostname()}-{os.getpid()}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(target)
        partial.mkdir()
        yield partial
        for path in sorted(partial.iterdir()):
            _sync(path)
        _sync(partial)
        _rename(partial, target)
        _sync(target.parent)
    except OSError as error:
        raise StorageError(
            f"cannot write {target.parent} ({error.strerror or error}): about {need_bytes:,} bytes are "
            "needed there; free some space or choose another cache folder"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def seal(folder: Path, manifest: dict[str, Any]) -> None:
    """Write the manifest with the size and SHA-256 of every other file in the folder."""
    stored = {
        path.name: {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
        for path in sorted(folder.iterdir())
    }
    text = json.dumps({**manifest, "stored": stored}, indent=1, ensure_ascii=False)
    (folder / MANIFEST).write_text(text + "\n", encoding="utf-8")


def open_sealed(folder: Path, *, kind: str, names: tuple[str, ...]) -> dict[str, Any]:
    """The manifest of a sealed folder, after checking kind, size and SHA-256 of the files `names`.

    Raises DataError naming the first file that is missing, damaged or not ours.
    """
    again = f"delete {folder} and it is made again"
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_bytes())
        stored = dict(manifest["stored"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise DataError(f"{path} is missing or damaged; {again}") from None
    if manifest.get("kind") != kind:
        raise DataError(f"{path} does not describe {kind}; {again}")
    for name in names:
        want = stored.get(name)
        try:
            size = (folder / name).stat().st_size
            if (
                not isinstance(want, dict)
                or size != want.get("bytes")
                or sha256_of(folder / name) != want.get("sha256")
            ):
                raise DataError(f"{folder / name} is not the file its manifest describes; {again}")
        except OSError as error:
            raise DataError(f"{folder / name} cannot be read ({error.strerror}); {again}") from None
    return dict(manifest)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _rename(partial: Path, target: Path) -> None:
    try:
        os.rename(partial, target)
    except OSError:
        if not (target / MANIFEST).exists():  # not another rank that finished first
            raise


def _remove_abandoned(target: Path) -> None:
    """Remove what runs of this machine that were killed left behind."""
    prefix = f"{target.name}.partial-{socket.gethostname()}-"
    for path in target.parent.iterdir():
        pid = path.name.removeprefix(prefix)
        if path.name.startswith(prefix) and pid.isdigit() and not _running(int(pid)):
            shutil.rmtree(path, ignore_errors=True)


def _running(pid: int) -> bool:
    if pid == os.getpid():
        return False  # our own id: left by a dead process that had it before us
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True
