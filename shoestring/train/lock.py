"""The lock of a run's folder: one process at a time trains in it, and others see which."""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from shoestring.durable import storage_error
from shoestring.errors import ConfigError

if sys.platform != "win32":  # which has no such locks: there nobody is kept out
    import fcntl

FILE = "process.json"
_MAX_BYTES = 4096


@contextmanager
def run_lock(out: Path, **facts: Any) -> Iterator[None]:
    """Hold the lock of a folder, which is made; the system frees it when the process ends, however it does.

    `facts` about the process stay in its file. Raises ConfigError when another process holds it,
    StorageError.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        handle = os.open(out / FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise storage_error(error, out / FILE, 0) from error
    try:
        try:
            if sys.platform != "win32":
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = read_facts(out).get("pid", "unknown")
            raise ConfigError(f"process {holder} trains in {out} already; end it first") from None
        os.ftruncate(handle, 0)
        os.pwrite(handle, json.dumps({"pid": os.getpid(), **facts}).encode(), 0)
        yield
    finally:
        os.close(handle)


def holder(out: Path) -> int | None:
    """The id of the process of this machine that trains in a folder; None without one."""
    if sys.platform == "win32":
        return None
    try:
        handle = os.open(out / FILE, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        pid = read_facts(out).get("pid")
        return pid if type(pid) is int and pid > 1 else None
    except OSError:
        return None
    finally:
        os.close(handle)
    return None


def read_facts(out: Path) -> dict[str, Any]:
    """The facts about the last process that trained in a folder; empty without one."""
    try:
        handle = os.open(out / FILE, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        with open(handle, "rb") as file:
            facts = json.loads(file.read(_MAX_BYTES))
    except (OSError, ValueError, RecursionError):
        return {}
    return facts if isinstance(facts, dict) else {}
