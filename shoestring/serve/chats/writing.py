"""Messages that an answer is written into: statements on a connection, for one transaction.

The process that writes is named in the message. What a dead process left is ended as it is.
"""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, select, update

from shoestring.serve.backends.errors import RequestError
from shoestring.serve.chats.chats import chat_row
from shoestring.serve.chats.messages import add_size
from shoestring.serve.storage.tables import messages, servers

INTERRUPTED = "interrupted"
"""The finish reason of an answer whose process ended before it."""
HAS_WRITER = messages.c.server_id > ""
"""The condition for messages that are written now, in a form for which there is an index."""
CANCELLED = "cancelled"
"""The finish reason of an answer that its reader stopped."""


@dataclass(frozen=True)
class Place:
    """The message that an answer is written into."""

    account_id: str
    chat_id: str
    message_id: str

    @property
    def here(self) -> ColumnElement[bool]:
        """The condition for its row."""
        of_chat = (messages.c.account_id == self.account_id) & (messages.c.chat_id == self.chat_id)
        return of_chat & (messages.c.id == self.message_id)


def begin(connection: Connection, place: Place, server_id: str) -> bool:
    """Begin to write; False when the message was answered before, or another process answers it.

    Raises RequestError when there is no such message.
    """
    chat_row(connection, place.account_id, place.chat_id, is_locked=True)
    row = connection.execute(select(messages).where(place.here)).first()
    if row is None or row.role != "assistant":
        raise RequestError("not_found", "there is no such message of the assistant; keep it first")
    if row.server_id is not None or row.finish_reason is not None or row.error is not None:
        return False
    connection.execute(update(messages).where(place.here).values(server_id=server_id))
    return True


def write(connection: Connection, place: Place, server_id: str, values: dict[str, Any]) -> bool:
    """Write what there is; `values` with a `server_id` of None end it. False when somebody asked for the end.

    Other processes may have taken this one for dead, as after a long sleep: what they ended goes on. A
    message that is gone, or that its owner has changed since, stays as it is.
    """
    row = connection.execute(select(messages).where(place.here).with_for_update()).first()
    if row is None or (row.server_id != server_id and row.finish_reason != INTERRUPTED):
        return True
    is_asked = row.finish_reason == CANCELLED
    texts = (values["content"], values["reasoning_content"], row.attachments)
    num_bytes = sum(len(text.encode()) for text in texts)
    fields = {"finish_reason": CANCELLED if is_asked else None, "server_id": server_id, **values}
    if fields["server_id"] is None:
        fields["folded"] = fields["content"].casefold()
    connection.execute(update(messages).where(place.here).values(**fields, num_bytes=num_bytes))
    add_size(connection, place.account_id, place.chat_id, num_bytes - row.num_bytes)
    return not is_asked


def ask_end(connection: Connection, place: Place) -> None:
    """Ask the process that writes a message to end it."""
    here = place.here & HAS_WRITER
    connection.execute(update(messages).where(here).values(finish_reason=CANCELLED))


def has_dead(connection: Connection) -> bool:
    """Return whether something is written by a process that is not there any more."""
    return connection.execute(select(messages.c.id).where(_dead()).limit(1)).first() is not None


def end_dead(connection: Connection) -> int:
    """End what processes write that are not there any more; returns the number of messages."""
    return _end(connection, _dead())


def end_all(connection: Connection) -> int:
    """End what is written in a database that no other process has open; returns the number of messages."""
    return _end(connection, HAS_WRITER)


def _dead() -> ColumnElement[bool]:
    return HAS_WRITER & messages.c.server_id.not_in(select(servers.c.id))


def _end(connection: Connection, here: ColumnElement[bool]) -> int:
    query = select(messages.c.account_id, messages.c.chat_id, messages.c.id, messages.c.content)
    rows = connection.execute(query.where(here)).all()
    for row in rows:
        values = {"server_id": None, "finish_reason": INTERRUPTED, "folded": row.content.casefold()}
        place = Place(row.account_id, row.chat_id, row.id)
        connection.execute(update(messages).where(place.here & here).values(**values))
    return len(rows)


def find_place(connection: Connection, account_id: str, message_id: str) -> Place | None:
    """The place of a message that is written now."""
    here = (messages.c.account_id == account_id) & (messages.c.id == message_id)
    query = select(messages.c.chat_id).where(here & HAS_WRITER)
    row = connection.execute(query).first()
    return None if row is None else Place(account_id, row.chat_id, message_id)


def places(connection: Connection, account_id: str) -> list[Place]:
    """The places of an account's messages that are written now."""
    here = (messages.c.account_id == account_id) & HAS_WRITER
    rows = connection.execute(select(messages.c.chat_id, messages.c.id).where(here))
    return [Place(account_id, row.chat_id, row.id) for row in rows]


def text_at(connection: Connection, place: Place) -> Row[Any] | None:
    """The message at a place as it is now."""
    return connection.execute(select(messages).where(place.here)).first()
