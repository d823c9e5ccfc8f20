"""Chats in the database: statements on a connection, for one transaction, each about one account."""

import json
from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, delete, exists, func, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from shoestring.serve.backends.errors import RequestError
from shoestring.serve.chats.schema import ChatHead
from shoestring.serve.storage.tables import chats, messages, shares

MAX_CHATS = 5000
"""Chats of an account, deleted ones that can be restored too."""
MAX_ACCOUNT_BYTES = 256 << 20
"""UTF-8 bytes of an account's messages and shares."""
UNDO_MS = 3_600_000
"""Time for which a chat that was deleted can be restored."""
NO_CHAT = "there is no such chat"


def chat_ids(connection: Connection, account_id: str, words: str = "") -> list[str]:
    """The ids of an account's chats, the last change first; with `words`, of those that have all of them.

    A word may be a part of one, in the title or in a message.
    """
    query = select(chats.c.id).where(_present(account_id))
    for word in dict.fromkeys(words.casefold().split()):
        of_chat = (messages.c.account_id == account_id) & (messages.c.chat_id == chats.c.id)
        in_message = exists().where(of_chat & messages.c.folded.contains(word, autoescape=True))
        query = query.where(or_(chats.c.folded.contains(word, autoescape=True), in_message))
    return [row.id for row in connection.execute(query.order_by(chats.c.changed_ms.desc(), chats.c.id))]


def chat_heads(connection: Connection, account_id: str, ids: Sequence[str]) -> list[dict[str, Any]]:
    """The chats of these ids that are there, without their messages, in this order."""
    query = select(chats).where(_present(account_id) & chats.c.id.in_(ids))
    heads = {row.id: head(row) for row in connection.execute(query)}
    return [heads[chat_id] for chat_id in ids if chat_id in heads]


def chat_row(connection: Connection, account_id: str, chat_id: str, *, is_locked: bool = False) -> Row[Any]:
    """The row of a chat, which others wait to change if it is locked. Raises RequestError without one."""
    query = select(chats).where(_present(account_id) & (chats.c.id == chat_id))
    row = connection.execute(query.with_for_update() if is_locked else query).first()
    if row is None:
        raise RequestError("not_found", NO_CHAT)
    return row


def put_chat(connection: Connection, account_id: str, body: ChatHead, *, revives: bool = False) -> None:
    """Keep a chat, new or in a new form; `revives` brings back one that was deleted.

    Raises RequestError for one too many, and for one that was deleted.
    """
    here = (chats.c.account_id == account_id) & (chats.c.id == body.id)
    values = _values(body)
    statement = update(chats).where(here if revives else here & chats.c.deleted_ms.is_(None))
    if connection.execute(statement.values(**values, deleted_ms=None)).rowcount:
        return
    if connection.execute(select(chats.c.id).where(here)).first() is not None:
        raise RequestError("conflict", "this chat was deleted; restore it first")
    check_room(connection, account_id, num_chats=1)
    row = {"account_id": account_id, "id": body.id, "num_bytes": 0, "num_messages": 0, **values}
    try:
        with connection.begin_nested():
            connection.execute(insert(chats).values(**row))
    except IntegrityError:  # another process has made it just now
        connection.execute(statement.values(**values))


def check_room(connection: Connection, account_id: str, *, num_chats: int = 0, num_bytes: int = 0) -> None:
    """Raise RequestError when an account may not have so much more."""
    if num_chats <= 0 and num_bytes <= 0:
        return
    totals = []
    for table in (chats, shares):
        columns = (func.count(), func.coalesce(func.sum(table.c.num_bytes), 0))
        totals.append(connection.execute(select(*columns).where(table.c.account_id == account_id)).one())
    if num_chats and totals[0][0] + num_chats > MAX_CHATS:
        sentence = f"you have {MAX_CHATS} chats, which is the most; delete some, and try again in an hour"
        raise RequestError("conflict", sentence)
    if num_bytes > 0 and totals[0][1] + totals[1][1] + num_bytes > MAX_ACCOUNT_BYTES:
        sentence = f"your chats fill {MAX_ACCOUNT_BYTES >> 20} MiB, which is the most; delete some"
        raise RequestError("conflict", f"{sentence}, and try again in an hour")


def delete_chats(connection: Connection, account_id: str, time_ms: int, chat_id: str | None = None) -> None:
    """Delete a chat, or all: they can be restored for an hour. Raises RequestError without such a chat."""
    here = _present(account_id) if chat_id is None else _present(account_id) & (chats.c.id == chat_id)
    num_chats = connection.execute(update(chats).where(here).values(deleted_ms=time_ms)).rowcount
    if chat_id is not None and not num_chats:
        raise RequestError("not_found", NO_CHAT)


def restore_chat(connection: Connection, account_id: str, chat_id: str) -> None:
    """Take back the deletion of a chat. Raises RequestError when it is too late."""
    here = (chats.c.account_id == account_id) & (chats.c.id == chat_id)
    if not connection.execute(update(chats).where(here).values(deleted_ms=None)).rowcount:
        raise RequestError("not_found", f"{NO_CHAT}: an hour after its deletion it is erased for good")


def erase_old(connection: Connection, time_ms: int) -> int:
    """Erase chats that were deleted an hour ago, with their messages and shares; returns how many."""
    return connection.execute(delete(chats).where(chats.c.deleted_ms <= time_ms - UNDO_MS)).rowcount


def head(row: Row[Any]) -> dict[str, Any]:
    """A chat without its messages, as ChatHead has it."""
    fields = {name: getattr(row, name) for name in ChatHead.model_fields}
    return fields | {"is_pinned": bool(row.is_pinned), "settings": json.loads(row.settings)}


def _values(body: ChatHead) -> dict[str, Any]:
    """The columns that a client sets."""
    values = {name: getattr(body, name) for name in ChatHead.model_fields if name not in ("id", "settings")}
    values |= {"is_pinned": int(body.is_pinned), "folded": body.title.casefold()}
    return values | {"settings": body.settings.model_dump_json()}


def _present(account_id: str) -> ColumnElement[bool]:
    """The chats of an account that were not deleted."""
    return (chats.c.account_id == account_id) & chats.c.deleted_ms.is_(None)
