"""Parts of the routes of chats: the store, and what it has, in parts."""

from collections.abc import Mapping, Sequence
from typing import Annotated

from fastapi import Depends, Path, Request

from shoestring.serve.backends.errors import RequestError
from shoestring.serve.chats.chats import chat_heads
from shoestring.serve.chats.messages import messages_of, parts
from shoestring.serve.chats.store import ChatStore
from shoestring.serve.routes.long_json import Items

HEADS = 100
"""Chats of a list that are read at once."""
ERRORS = {409: "Not now, or too much; the message says why."}


async def store_of(request: Request) -> ChatStore:
    """The store of chats. Raises RequestError when the service keeps none."""
    store: ChatStore | None = request.app.state.chats
    if store is None:
        raise RequestError("not_found", "this service keeps no chats: they stay in the browser")
    return store


TheStore = Annotated[ChatStore, Depends(store_of)]
TheId = Annotated[str, Path(pattern="^[A-Za-z0-9_-]{8,40}$")]


async def stored_chats(store: ChatStore, account_id: str, ids: Sequence[str]) -> Items:
    """The chats of these ids, without their messages, in this order."""
    for begin in range(0, len(ids), HEADS):
        for head in await store.read(chat_heads, account_id, ids[begin : begin + HEADS]):
            yield head


async def stored_messages(store: ChatStore, account_id: str, chat_id: str, sizes: Mapping[str, int]) -> Items:
    """The messages of a chat, the oldest first; `sizes` are their bytes by id."""
    for part in parts(sizes):
        for message in await store.read(messages_of, account_id, chat_id, part):
            yield message
