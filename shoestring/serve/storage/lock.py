"""The lock of a SQLite database: one process at a time serves from a file, migrates or replaces it."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager

from shoestring.errors import ConfigError
from shoestring.serve.storage.engines import sqlite_file


@contextmanager
def database_lock(url: str) -> Iterator[None]:
    """Hold the lock FILE.lock; the system frees it when the process ends, however it does.

    PostgreSQL needs none: many processes may write. Raises ConfigError when another process holds it.
    """
    file = sqlite_file(url)
    if file is None:
        yield
        return
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle = os.open(file.with_name(f"{file.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(handle, 20).decode(errors="replace")
            raise ConfigError(f"process {holder or 'unknown'} uses {file}; end it first") from None
        os.ftruncate(handle, 0)
        os.pwrite(handle, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(handle)
