"""The lock of a run's folder: one process at a time trains in it, and others see which."""

import json
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

from shoestring.durable import file_lock, storage_error
from shoestring.errors import ConfigError

if sys.platform != "win32":
    import fcntl

FILE = "process.json"
_MAX_BYTES = 4096


@contextmanager
def run_lock(out: Path, **facts: Any) -> Iterator[None]:
    """Hold the lock of a folder, which is made; the system frees it when the process ends, however it does.

    `facts` about the process stay in its file, beside its id, machine and start. A folder that stays empty
    is removed. Raises ConfigError when another process holds it, StorageError.
    """
    with ExitStack() as stack:
        try:
            out.mkdir(parents=True, exist_ok=True)
            handle = stack.enter_context(file_lock(out / FILE))
            own = {"pid": os.getpid(), "host": socket.gethostname(), "start_s": int(time.time()), **facts}
            os.ftruncate(handle, 0)
            os.pwrite(handle, json.dumps(own).encode(), 0)
        except BlockingIOError:
            raise ConfigError(f"{_holder_sentence(out)}; end it, or give another --out") from None
        except OSError as error:
            raise storage_error(error, out / FILE, 0) from error
        stack.callback(_remove_empty, out)
        yield


def _holder_sentence(out: Path) -> str:
    """The process that trains in a folder, its machine, and for how long it has."""
    facts = _facts_of_holder(out)
    pid, host, start_s = (facts.get(name) for name in ("pid", "host", "start_s"))
    where = f" of {host}" if isinstance(host, str) else ""
    age = f" for {timedelta(seconds=int(time.time()) - start_s)}" if type(start_s) is int else ""
    return f"process {pid or 'unknown'}{where} has trained in {out}{age}"


def _facts_of_holder(out: Path) -> dict[str, Any]:
    """The facts of the process that holds the lock, which writes them just after it has it."""
    facts = read_facts(out)
    for _ in range(20):
        pid = facts.get("pid")
        if type(pid) is int and (facts.get("host") != socket.gethostname() or _is_alive(pid)):
            break
        time.sleep(0.05)
        facts = read_facts(out)
    return facts


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _remove_empty(out: Path) -> None:
    """Remove the folder of a run that has left nothing, such as one with a wrong setting."""
    with suppress(OSError):  # another process may come, and leave a file of its own
        if [path.name for path in out.iterdir()] == [FILE]:
            (out / FILE).unlink()
            out.rmdir()


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
