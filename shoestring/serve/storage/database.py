"""The database: one connection that writes, committing many callers' work at once, and a few that read."""

import asyncio
import logging
import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from shoestring.serve.backends.errors import RequestError
from shoestring.serve.storage.engines import reading_engine, writing_engine

log = logging.getLogger(__name__)

Result = TypeVar("Result")
Work = Callable[[Connection], Result]
"""Statements on a connection. Work that writes may run twice, when the first transaction was rolled back."""

MAX_BATCH = 256
"""The most pieces of work in one commit."""
NUM_READERS = 4
RETRY_S = 5.0


class DatabaseGone(RequestError):
    """The database does not answer. A client should come back; its key is not wrong."""

    def __init__(self) -> None:
        super().__init__(
            "overloaded", "the database does not answer; try again in a moment", retry_after_s=RETRY_S
        )


@dataclass(frozen=True)
class _Write:
    work: Work[Any]
    future: "asyncio.Future[Any]"
    loop: asyncio.AbstractEventLoop


class Database:
    """A database whose writes are committed in groups, in the order in which they were asked for.

    SQLite before 3.51.3 can damage a file when two connections write and make checkpoints at once, so there
    is one writing connection, and it alone makes checkpoints.
    """

    def __init__(self, url: str) -> None:
        """`url` is SQLAlchemy's: sqlite:///file or postgresql://user@host/name. Nothing is opened yet."""
        self.url = url
        self._writer, self._reader = writing_engine(url), reading_engine(url, NUM_READERS)
        self._writes: queue.SimpleQueue[_Write | None] = queue.SimpleQueue()
        self._readers = ThreadPoolExecutor(NUM_READERS, thread_name_prefix="database-reader")
        self._thread = threading.Thread(target=self._run, name="database-writer", daemon=True)
        self._thread.start()

    async def write(self, work: Work[Result]) -> Result:
        """The result of work, once it is committed. Raises what it raises, or DatabaseGone.

        Work that has begun to wait is committed even when its caller is cancelled.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Result] = loop.create_future()
        self._writes.put(_Write(work, future, loop))
        return await future

    async def read(self, work: Work[Result]) -> Result:
        """The result of work that only reads, from one snapshot. Raises what it raises, or DatabaseGone."""

        def run() -> Result:
            try:
                with self._reader.begin() as connection:
                    return work(connection)
            except (DBAPIError, PoolTimeout) as error:
                log.warning("the database cannot be read: %s", type(error).__name__)
                raise DatabaseGone from None

        return await asyncio.get_running_loop().run_in_executor(self._readers, run)

    async def close(self) -> None:
        """Commit what waits and close all connections."""
        self._writes.put(None)
        await asyncio.to_thread(self._thread.join)
        self._readers.shutdown()
        self._writer.dispose()
        self._reader.dispose()

    def _run(self) -> None:
        is_open = True
        while is_open:
            batch = [self._writes.get()]
            while len(batch) < MAX_BATCH and not self._writes.empty():
                batch.append(self._writes.get())
            is_open = None not in batch
            self._commit([write for write in batch if write is not None])

    def _commit(self, writes: Sequence[_Write]) -> None:
        """Run a batch in one transaction. When a statement breaks it, each piece gets one of its own."""
        if not writes:
            return
        is_committing = False
        try:
            with self._writer.begin() as connection:
                outcomes = [_outcome(connection, write.work) for write in writes]
                is_committing = True
        except SQLAlchemyError as error:
            if len(writes) > 1 and not is_committing:
                for write in writes:
                    self._commit([write])
                return
            log.warning("the database cannot be written: %s", type(error).__name__)
            outcomes = [DatabaseGone() for _ in writes]
        for write, outcome in zip(writes, outcomes, strict=True):
            _resolve(write, outcome)


def _outcome(connection: Connection, work: Work[Any]) -> Any:
    """The result of one piece of a batch, or its error, which undoes this piece alone."""
    try:
        with connection.begin_nested():
            return work(connection)
    except DBAPIError:
        raise
    except Exception as error:
        return error


def _resolve(write: _Write, outcome: Any) -> None:
    def resolve() -> None:
        if write.future.done():
            return
        if isinstance(outcome, Exception):
            write.future.set_exception(outcome)
        else:
            write.future.set_result(outcome)

    try:
        write.loop.call_soon_threadsafe(resolve)
    except RuntimeError:
        log.debug("nobody waits for this write any more: its event loop is closed")
