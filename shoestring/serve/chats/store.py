"""The database of chats: the service's own, or one of the person on this machine, opened at its first use."""

import asyncio
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeVar

from shoestring.errors import ConfigError
from shoestring.serve.backends.errors import RequestError
from shoestring.serve.chats import writing
from shoestring.serve.chats.chats import chat_ids, erase_old
from shoestring.serve.chats.few import FewAtOnce
from shoestring.serve.storage.database import Database
from shoestring.serve.storage.engines import sqlite_url, writing_engine
from shoestring.serve.storage.lock import database_lock

Result = TypeVar("Result")

RETRY_S = 5.0
ERASE_EVERY_S = 600.0


class ChatStore:
    """Statements about chats, on a database that others use too. Use it on one event loop."""

    def __init__(self, database: Database | None, server_id: str) -> None:
        """`server_id` is this process among those that share the database."""
        self._database, self.server_id = database, server_id
        self._erase_s = -ERASE_EVERY_S
        self._searches = FewAtOnce(1, 3, "searches")

    async def read(self, work: Callable[..., Result], *arguments: Any, **values: Any) -> Result:
        """The result of statements that read. Raises RequestError."""
        database = await self._open()
        return await database.read(lambda connection: work(connection, *arguments, **values))

    async def write(self, work: Callable[..., Result], *arguments: Any, **values: Any) -> Result:
        """The result of statements that write. Raises RequestError."""
        database = await self._open()
        return await database.write(lambda connection: work(connection, *arguments, **values))

    async def close(self) -> None:
        """Close what was opened here: nothing."""

    async def search(self, account_id: str, words: str) -> list[str]:
        """The ids of an account's chats that have all words. Raises RequestError for one search too many."""
        async with self._searches.turn(account_id):
            return await self.read(chat_ids, account_id, words)

    async def tend(self) -> None:
        """End what processes wrote that died, and erase what was deleted. Raises DatabaseGone."""
        if await self.read(writing.has_dead):
            await self.write(writing.end_dead)
        await self._erase()

    async def _erase(self) -> None:
        if time.monotonic() > self._erase_s + ERASE_EVERY_S:
            self._erase_s = time.monotonic()
            await self.write(erase_old, self.now_ms())

    async def _open(self) -> Database:
        assert self._database is not None
        return self._database

    @staticmethod
    def now_ms() -> int:
        """The time, in whole milliseconds since 1970."""
        return int(time.time() * 1000)


class LocalChatStore(ChatStore):
    """A SQLite file of the one person of a service without accounts."""

    def __init__(self, file: Path) -> None:
        super().__init__(None, "srv_local")
        self._url = sqlite_url(file)
        self._turn = asyncio.Lock()
        self._lock = ExitStack()

    async def close(self) -> None:
        """Close the file, if it was opened."""
        if self._database is not None:
            await self._database.close()
            self._database = None
        self._lock.close()

    async def tend(self) -> None:
        """Erase what was deleted, if the file is open; no other process writes in it. Raises DatabaseGone."""
        if self._database is not None:
            await self._erase()

    async def _open(self) -> Database:
        async with self._turn:
            if self._database is None:
                try:
                    self._database = await asyncio.to_thread(self._make)
                except ConfigError as error:
                    raise RequestError("overloaded", f"no chats: {error}", retry_after_s=RETRY_S) from None
        return self._database

    def _make(self) -> Database:
        """Make the file, or bring it to this version's form; what a killed process wrote is ended.

        Raises ConfigError when it cannot be used.
        """
        from shoestring.serve.storage.migrate import migrate, transaction  # Alembic takes 0.15 s

        with ExitStack() as stack:
            stack.enter_context(database_lock(self._url))
            migrate(self._url)
            with transaction(writing_engine(self._url)) as connection:
                writing.end_all(connection)
            self._lock = stack.pop_all()
        return Database(self._url)
