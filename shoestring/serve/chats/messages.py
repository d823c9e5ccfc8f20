"""Messages of chats in the database: statements on a connection, for one transaction.

A message that an answer is written into belongs to the service until the answer ends: no client changes it.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, bindparam, insert, select, update

from shoestring.serve.backends.errors import RequestError
from shoestring.serve.chats.chats import chat_row, check_room
from shoestring.serve.chats.schema import MAX_MESSAGES, Message
from shoestring.serve.storage.tables import chats, messages

MAX_BYTES = 2 << 20
"""UTF-8 bytes of a message with its thinking and its attachments."""
PART = 200
"""Messages that are asked for at once, and the bytes of a part of them."""
PART_BYTES = 1 << 20


def message_sizes(connection: Connection, account_id: str, chat_id: str) -> dict[str, int]:
    """The bytes of each message of a chat by its id, the oldest first."""
    query = select(messages.c.id, messages.c.num_bytes).where(_of(account_id, chat_id))
    order = (messages.c.created_ms, messages.c.role.desc(), messages.c.id)  # a question before its answer
    rows = connection.execute(query.order_by(*order))
    return {row.id: row.num_bytes for row in rows}


def parts(sizes: Mapping[str, int]) -> Iterator[list[str]]:
    """The ids of messages in parts that are small enough to be in memory at once."""
    part: list[str] = []
    num_bytes = 0
    for message_id, size in sizes.items():
        if part and (num_bytes + size > PART_BYTES or len(part) == PART):
            yield part
            part, num_bytes = [], 0
        part.append(message_id)
        num_bytes += size
    if part:
        yield part


def messages_of(
    connection: Connection, account_id: str, chat_id: str, ids: Sequence[str]
) -> list[dict[str, Any]]:
    """The messages of these ids that a chat has, in this order."""
    query = select(messages).where(_of(account_id, chat_id) & messages.c.id.in_(ids))
    present = {row.id: message_fields(row) for row in connection.execute(query)}
    return [present[message_id] for message_id in ids if message_id in present]


def message_parts(bodies: Sequence[Message]) -> list[list[Message]]:
    """Messages that are to be kept, in parts that keep no other writer waiting; of two with one id, the last.

    Raises RequestError for one that is too long.
    """
    by_id = {body.id: body for body in bodies}
    sizes = {message_id: _values(body)["num_bytes"] for message_id, body in by_id.items()}
    return [[by_id[message_id] for message_id in part] for part in parts(sizes)]


def put_messages(connection: Connection, account_id: str, chat_id: str, bodies: Sequence[Message]) -> None:
    """Keep messages of a chat, new or in a new form; of two with one id, the last. Others of the chat stay.

    One that is written now, and one that the client saw so, keeps the text that it has. Raises RequestError
    without the chat, and beyond the limits of a message, a chat and an account.
    """
    chat = chat_row(connection, account_id, chat_id, is_locked=True)
    rows = {body.id: _values(body) for body in bodies}
    present = _present(connection, account_id, chat_id, list(rows))
    for body in bodies:
        if body.id in present and (body.is_running or present[body.id].server_id is not None):
            rows.pop(body.id, None)
    num_new = len(rows.keys() - present.keys())
    if chat.num_messages + num_new > MAX_MESSAGES:
        raise RequestError("conflict", f"a chat has {MAX_MESSAGES} messages at most; begin a new one")
    num_bytes = sum(row["num_bytes"] for row in rows.values())
    num_bytes -= sum(row.num_bytes for row in present.values() if row.id in rows)
    check_room(connection, account_id, num_bytes=num_bytes)
    key = {"account_id": account_id, "chat_id": chat_id}
    if new_rows := [{**key, "id": each, **rows[each]} for each in rows if each not in present]:
        connection.execute(insert(messages), new_rows)
    if old_rows := [{"old_id": each, **rows[each]} for each in rows if each in present]:
        here = _of(account_id, chat_id) & (messages.c.id == bindparam("old_id"))
        connection.execute(update(messages).where(here), old_rows)
    add_size(connection, account_id, chat_id, num_bytes, num_new)


def add_size(
    connection: Connection, account_id: str, chat_id: str, num_bytes: int, num_messages: int = 0
) -> None:
    """Count what a chat has grown by."""
    here = (chats.c.account_id == account_id) & (chats.c.id == chat_id)
    values = {
        "num_bytes": chats.c.num_bytes + num_bytes,
        "num_messages": chats.c.num_messages + num_messages,
    }
    connection.execute(update(chats).where(here).values(**values))


def message_fields(row: Row[Any]) -> dict[str, Any]:
    """A message as Message has it."""
    fields = {name: getattr(row, name, None) for name in Message.model_fields}
    fields |= {"attachments": json.loads(row.attachments), "figures": json.loads(row.figures)}
    return fields | {"is_running": row.server_id is not None}


def _present(connection: Connection, account_id: str, chat_id: str, ids: Sequence[str]) -> dict[str, Any]:
    """The sizes and writers of the messages of these ids that a chat has."""
    columns = (messages.c.id, messages.c.num_bytes, messages.c.server_id)
    query = select(*columns).where(_of(account_id, chat_id) & messages.c.id.in_(ids))
    return {row.id: row for row in connection.execute(query)}


def _values(body: Message) -> dict[str, Any]:
    """The columns that a client sets. Raises RequestError for a message that is too long."""
    derived = ("id", "is_running", "attachments", "figures")
    values = {name: getattr(body, name) for name in Message.model_fields if name not in derived}
    attachments = [attachment.model_dump() for attachment in body.attachments]
    values["attachments"] = json.dumps(attachments, ensure_ascii=False)
    texts = (body.content, body.reasoning_content, values["attachments"])
    values["num_bytes"] = sum(len(text.encode()) for text in texts)
    if values["num_bytes"] > MAX_BYTES:
        raise RequestError("too_large", f"a message is longer than {MAX_BYTES >> 20} MiB", field="content")
    values["figures"] = body.figures.model_dump_json(exclude_none=True)
    return values | {"folded": body.content.casefold()}


def _of(account_id: str, chat_id: str) -> ColumnElement[bool]:
    """The messages of a chat."""
    return (messages.c.account_id == account_id) & (messages.c.chat_id == chat_id)
