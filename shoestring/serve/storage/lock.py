"""The lock of a SQLite database: one process at a time serves from a file, migrates or replaces it."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from shoestring.durable import file_lock
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
    place = file.with_name(f"{file.name}.lock")
    with ExitStack() as stack:
        try:
            handle = stack.enter_context(file_lock(place, mode=0o600))
        except BlockingIOError:
            holder = place.read_bytes()[:20].decode(errors="replace")
            raise ConfigError(f"process {holder or 'unknown'} uses {file}; end it first") from None
        os.ftruncate(handle, 0)
        os.pwrite(handle, str(os.getpid()).encode(), 0)
        yield
