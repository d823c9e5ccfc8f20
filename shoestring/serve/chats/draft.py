"""The message of an answer, which is written into its chat while the answer grows, and at its end."""

import asyncio
import logging
from typing import Any

from shoestring.serve.chats import writing
from shoestring.serve.chats.progress import Progress
from shoestring.serve.chats.store import ChatStore
from shoestring.serve.chats.writing import Place
from shoestring.serve.storage.database import DatabaseGone

log = logging.getLogger(__name__)

WRITE_S = 1.0
"""Seconds between two writes: a killed process loses at most so much of an answer."""
RETRY_S = 1.0
RETRIES = 60
"""Times that the end is written again while the database does not answer."""


class Draft:
    """A message that this process writes."""

    def __init__(self, store: ChatStore, place: Place) -> None:
        self._store, self._place = store, place

    async def begin(self) -> bool:
        """Begin to write; False when the message was answered before, or another process answers it.

        Raises RequestError when there is no such message.
        """
        return await self._store.write(writing.begin, self._place, self._store.server_id)

    async def write(self, progress: Progress) -> bool:
        """Write what there is; False when somebody has asked for its end at another process."""
        return await self._write(progress, {})

    async def end(self, progress: Progress, values: dict[str, Any]) -> bool:
        """Write the end; False when the database does not answer."""
        try:
            await self._write(progress, {"server_id": None, **values})
        except DatabaseGone:
            return False
        return True

    async def end_later(self, progress: Progress, values: dict[str, Any]) -> None:
        """Write the end as soon as the database answers again."""
        for _ in range(RETRIES):
            await asyncio.sleep(RETRY_S)
            if await self.end(progress, values):
                return
        log.error("the end of an answer could not be written: the database is away")

    async def _write(self, progress: Progress, values: dict[str, Any]) -> bool:
        texts = {"content": progress.content, "reasoning_content": progress.reasoning_content}
        return await self._store.write(writing.write, self._place, self._store.server_id, {**texts, **values})
