"""Checkpoint folders that survive a crash: written aside, hashed and renamed; a damaged one is refused.

The layout is `<folder>/step-00000123/` with the caller's files and `manifest.json`, their sizes and sha256.
A step folder is never overwritten: for a moment neither the old nor the new checkpoint would be whole.
"""

import hashlib
import json
import logging
import os
import re
import shutil
import stat
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

from shoestring.durable import bytes_in, new_folder
from shoestring.errors import CheckpointError, ConfigError

log = logging.getLogger(__name__)

MANIFEST = "manifest.json"
_FORMAT = 1
_MANIFEST_LIMIT_BYTES = 64 << 20
_STEP = re.compile(r"step-(\d{8,})")
_LEFTOVERS = r"step-\d{8,}\.(?:tmp|trash)-.*?"  # of any machine: one process at a time saves


def save(folder: Path, step: int, write: Callable[[Path], None], *, keep: int = 2) -> Path:
    """Save the files that `write(path)` puts into a new folder as `folder/step-<step>`; returns that path.

    A kill at any moment leaves every earlier checkpoint whole, and this one whole or absent. Afterwards only
    the newest `keep` remain. A step that is there already and passes `verify` stays, and `write` is not
    called. One process at a time may save into a folder. Raises StorageError when there is no room (earlier
    checkpoints stay), and any error of `write`.
    """
    if step < 0 or keep < 1:
        raise ConfigError(f"step = {step}, keep = {keep}: a step is at least 0, keep at least 1")
    final = folder / f"step-{step:08d}"
    if final.exists() and _verifies(final):
        log.info("%s is already saved", final)
        return final
    latest_bytes = sum(bytes_in(path) for path in _steps(folder)[:1])
    with new_folder(final, needed_bytes=latest_bytes, leftovers=_LEFTOVERS) as temporary:
        write(temporary)
        _seal(temporary, step)
        if final.exists():  # it is damaged, or it would have been kept above
            _discard(final)
    _prune(folder, step, keep)
    return final


def latest(folder: Path) -> Path | None:
    """The newest checkpoint in `folder` that passes `verify`; None if there is no checkpoint.

    A warning names each damaged one, and the one before it is used. Raises CheckpointError when there are
    checkpoints and all of them are damaged.
    """
    steps = _steps(folder)
    for path in steps:
        if _verifies(path):
            return path
    if not steps:
        return None
    names = ", ".join(path.name for path in steps)
    raise CheckpointError(
        f"every checkpoint in {folder} is damaged ({names}); "
        f"restore one from a copy or start anew in another --out"
    )


def verify(path: Path) -> None:
    """Check every file of a checkpoint against its manifest.

    Raises CheckpointError naming the first file that is missing, of another size, or of another content.
    """
    for name, entry in _read_manifest(path).items():
        _check_size(path, name, entry["bytes"])
        if _sha256(path / name) != entry["sha256"]:
            raise _damaged(path / name, "its content changed after it was saved (sha256 differs)")


def refuse_to_overwrite(run: Path) -> None:
    """Raise ConfigError if the folder holds checkpoints of a run, which a new run would mix with its own."""
    if (run / "checkpoints").exists():
        raise ConfigError(f"{run} already holds a run; --resume continues it, another --out starts anew")


def step_of(path: Path) -> int:
    """The step of a checkpoint folder, from its name; raises CheckpointError for any other name."""
    match = _STEP.fullmatch(path.name)
    if match is None:
        raise CheckpointError(f"{path} is not a checkpoint folder: its name is not step-<8 digits>")
    return int(match[1])


def _seal(folder: Path, step: int) -> None:
    """Write the manifest of `folder`."""
    files = {
        path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": _sha256(path)}
        for path in folder.rglob("*")
        if not path.is_dir()
    }
    manifest = _manifest_bytes({"format": _FORMAT, "step": step, "files": files})
    (folder / MANIFEST).write_bytes(manifest)


def _manifest_bytes(manifest: dict[str, Any]) -> bytes:
    return (json.dumps(manifest, indent=1, sort_keys=True) + "\n").encode()


def _read_manifest(path: Path) -> dict[str, dict[str, Any]]:
    """File name -> {"bytes", "sha256"}; CheckpointError if any byte of the manifest has changed."""
    file = path / MANIFEST
    _check_size(path, MANIFEST, None)
    try:
        data = file.read_bytes()
        manifest = json.loads(data)
        canonical = _manifest_bytes(manifest) == data
        files = dict(manifest["files"])
        for name, entry in files.items():
            if set(entry) != {"bytes", "sha256"} or not _is_inside(name):
                raise ValueError(f"a wrong entry for {name!r}")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _damaged(file, f"it cannot be read ({type(error).__name__}: {error})") from None
    fits = _STEP.fullmatch(path.name) is None or manifest.get("step") == step_of(path)
    if not (canonical and fits and manifest.get("format") == _FORMAT):
        raise _damaged(file, f"it is not what was written for {path.name}")
    return files


def _is_inside(name: str) -> bool:
    """Return whether a manifest's file name stays below the checkpoint's folder."""
    parts = PurePosixPath(name).parts
    return bool(parts) and not name.startswith("/") and ".." not in parts and "\0" not in name


def _check_size(folder: Path, name: str, expected_bytes: int | None) -> None:
    """Raise unless `name` is a regular file (a pipe or device would hang the reader) of the expected size."""
    path = folder / name
    try:
        status = path.lstat()
    except OSError as error:
        raise _damaged(path, f"it is missing ({error.strerror})") from None
    if not stat.S_ISREG(status.st_mode):
        raise _damaged(path, "it is not a regular file")
    if expected_bytes is not None and status.st_size != expected_bytes:
        raise _damaged(path, f"it has {status.st_size:,} bytes instead of {expected_bytes:,}")
    if expected_bytes is None and status.st_size > _MANIFEST_LIMIT_BYTES:
        raise _damaged(path, f"it has {status.st_size:,} bytes, more than any manifest")


def _sha256(path: Path) -> str:
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise _damaged(path, f"it cannot be read ({error.strerror})") from None


def _damaged(file: Path, why: str) -> CheckpointError:
    return CheckpointError(f"{file} is damaged: {why}; use an earlier checkpoint or a copy")


def _verifies(path: Path) -> bool:
    try:
        verify(path)
    except CheckpointError as error:
        log.warning("checkpoint %s is not used: %s", path.name, error)
        return False
    return True


def _looks_whole(path: Path) -> bool:
    """Return whether the manifest is right and every file has its size: a cheap check, for pruning."""
    try:
        for name, entry in _read_manifest(path).items():
            _check_size(path, name, entry["bytes"])
    except CheckpointError:
        return False
    return True


def _steps(folder: Path) -> list[Path]:
    """The checkpoint folders, newest first, damaged ones included."""
    try:
        paths = [path for path in folder.iterdir() if _STEP.fullmatch(path.name) and path.is_dir()]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise CheckpointError(f"cannot look for checkpoints in {folder}: {error.strerror}") from None
    return sorted(paths, key=step_of, reverse=True)


def _prune(folder: Path, step: int, keep: int) -> None:
    """Remove the checkpoints older than the newest `keep` whole ones up to `step`.

    Later steps, of a run that was resumed from before them, are neither counted nor removed, so the
    checkpoint of `step` always stays.
    """
    whole = [step_of(path) for path in _steps(folder) if step_of(path) <= step and _looks_whole(path)]
    oldest_kept = whole[:keep][-1]
    for path in _steps(folder):
        if step_of(path) < oldest_kept:
            _discard(path)


def _discard(path: Path) -> None:
    """Remove a checkpoint, renamed first: a kill half-way leaves no part of it under a valid name."""
    trash = path.with_name(f"{path.name}.trash-{os.getpid()}")
    os.rename(path, trash)
    shutil.rmtree(trash, ignore_errors=True)
