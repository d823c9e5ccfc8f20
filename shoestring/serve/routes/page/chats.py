"""Routes of chats: list, search, read, keep, delete and restore."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Query, Response

from shoestring.serve.audience import Audience, audience
from shoestring.serve.backends.errors import RequestError
from shoestring.serve.chats.chats import chat_ids, chat_row, delete_chats, head, put_chat, restore_chat
from shoestring.serve.chats.messages import message_parts, message_sizes, put_messages
from shoestring.serve.chats.schema import Chat, ChatBody, ChatList, Message, storable
from shoestring.serve.dialects.schema import OpenAIError, errors, whole
from shoestring.serve.routes.long_json import long_object
from shoestring.serve.routes.page.stored import (
    ERRORS,
    TheId,
    TheStore,
    stored_chats,
    stored_messages,
)
from shoestring.serve.routes.parts import TheCaller

router = APIRouter(prefix="/chats", tags=["chats"], responses=errors(OpenAIError, ERRORS))

MAX_WORDS = 10
"""Words of a search."""


@router.get("", response_class=Response, responses=whole(ChatList))
@audience(Audience.ACCOUNT)
async def list_chats(
    caller: TheCaller, store: TheStore, search: Annotated[str, Query(max_length=200)] = ""
) -> Response:
    """List the chats, the last change first; with `search`, those whose title or messages have all words."""
    words: str = storable(search)
    if len(words.split()) > MAX_WORDS:
        raise RequestError("invalid", f"search for {MAX_WORDS} words at most", field="search")
    account_id = caller.account_id
    ids = await (store.search(account_id, words) if words else store.read(chat_ids, account_id))
    return long_object({}, {"chats": stored_chats(store, account_id, ids)})


@router.delete("", status_code=204)
@audience(Audience.ACCOUNT)
async def delete_all(caller: TheCaller, store: TheStore) -> None:
    """Delete all chats; each can be restored for an hour."""
    await store.write(delete_chats, caller.account_id, store.now_ms())


@router.get("/{chat_id}", response_class=Response, responses=whole(Chat))
@audience(Audience.ACCOUNT)
async def read_chat(chat_id: TheId, caller: TheCaller, store: TheStore) -> Response:
    """Show a chat with its messages, the oldest first."""
    fields = head(await store.read(chat_row, caller.account_id, chat_id))
    sizes = await store.read(message_sizes, caller.account_id, chat_id)
    items = stored_messages(store, caller.account_id, chat_id, sizes)
    return long_object(fields, {"messages": items})


@router.put("/{chat_id}", status_code=204)
@audience(Audience.ACCOUNT)
async def keep_chat(chat_id: TheId, body: ChatBody, caller: TheCaller, store: TheStore) -> None:
    """Keep a chat, new or in a new form, perhaps with messages; those that it has besides stay."""
    _check_id(chat_id, body.id)
    parts = await asyncio.to_thread(message_parts, body.messages or ())  # they may be very many
    await store.write(put_chat, caller.account_id, body, revives=body.messages is not None)
    for part in parts:
        await store.write(put_messages, caller.account_id, chat_id, part)


@router.put("/{chat_id}/messages/{message_id}", status_code=204)
@audience(Audience.ACCOUNT)
async def keep_message(
    chat_id: TheId, message_id: TheId, body: Message, caller: TheCaller, store: TheStore
) -> None:
    """Keep a message, new or in a new form; the text of one that is written now stays."""
    _check_id(message_id, body.id)
    await store.write(put_messages, caller.account_id, chat_id, [body])


@router.delete("/{chat_id}", status_code=204)
@audience(Audience.ACCOUNT)
async def delete_chat(chat_id: TheId, caller: TheCaller, store: TheStore) -> None:
    """Delete a chat; it can be restored for an hour, and is erased then."""
    await store.write(delete_chats, caller.account_id, store.now_ms(), chat_id)


@router.post("/{chat_id}/restore", status_code=204)
@audience(Audience.ACCOUNT)
async def bring_back(chat_id: TheId, caller: TheCaller, store: TheStore) -> None:
    """Take back the deletion of a chat."""
    await store.write(restore_chat, caller.account_id, chat_id)


def _check_id(place: str, own: str) -> None:
    """Raise RequestError when a body has another id than its path."""
    if place != own:
        raise RequestError("invalid", "the id in the body is not the one in the path", field="id")
