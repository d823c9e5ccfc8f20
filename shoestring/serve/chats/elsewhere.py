"""An answer that another process writes, as its message in the database has it."""

import asyncio
import json

from shoestring.serve.backends.errors import RequestError
from shoestring.serve.chats.progress import Progress
from shoestring.serve.chats.store import ChatStore
from shoestring.serve.chats.writing import Place, text_at

POLL_S = 0.5


class StoredProgress(Progress):
    """A message that somebody else writes."""

    def __init__(self, store: ChatStore, place: Place) -> None:
        super().__init__(place.message_id, "", 0)
        self._store, self._place = store, place

    async def read(self) -> None:
        """Take what the database has now."""
        row = await self._store.read(text_at, self._place)
        if row is None:
            self.is_over, self.error = True, RequestError("not_found", "this chat is gone")
            return
        self.model, self.created_s = row.model or "", row.created_ms // 1000
        self.content, self.reasoning_content = row.content, row.reasoning_content
        if row.server_id is None:
            self.is_over, self.finish_reason = True, row.finish_reason
            self.figures = json.loads(row.figures)
            self.error = None if row.error is None else RequestError("failed", row.error)

    async def change(self, version: int) -> None:
        await asyncio.sleep(POLL_S)
        await self.read()
