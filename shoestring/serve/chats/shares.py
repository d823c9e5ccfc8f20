"""Shares in the database: branches of chats as they were, for whoever has the link.

Functions here are statements on a connection, for one transaction.
"""

import json
import secrets
from typing import Any

from sqlalchemy import ColumnElement, Connection, delete, insert, select

from shoestring.serve.backends.errors import RequestError
from shoestring.serve.chats.chats import chat_row, check_room
from shoestring.serve.chats.messages import messages_of
from shoestring.serve.storage.tables import chats, messages, shares

TOKEN_BYTES = 18
"""144 bits, which nobody guesses."""
MAX_SHARES = 500
"""Shares of an account."""
MAX_BYTES = 4 << 20
"""UTF-8 bytes of a share."""
TOO_MUCH = f"this is more than {MAX_BYTES >> 20} MiB: share the branch up to an earlier message"
NO_SHARE = "there is no such share, or its owner has taken it back"


def share_branch(connection: Connection, account_id: str, chat_id: str, leaf: str, time_ms: int) -> str:
    """Share the branch of a chat that ends with a message; returns the share's token.

    It has what was said and no more: no settings, figures or texts of attachments. Raises RequestError
    without the message, while an answer is written, and for what is too much.
    """
    chat = chat_row(connection, account_id, chat_id)
    content = json.dumps(_branch(connection, account_id, chat_id, leaf), ensure_ascii=False)
    num_bytes = len(content.encode())
    if num_bytes > MAX_BYTES:
        raise RequestError("too_large", TOO_MUCH)
    if len(shares_of(connection, account_id)) >= MAX_SHARES:
        raise RequestError("conflict", f"you share {MAX_SHARES} chats, which is the most; take one back")
    check_room(connection, account_id, num_bytes=num_bytes)
    token = secrets.token_urlsafe(TOKEN_BYTES)
    row = {"token": token, "account_id": account_id, "chat_id": chat_id, "title": chat.title}
    row |= {"created_ms": time_ms, "content": content, "num_bytes": num_bytes}
    connection.execute(insert(shares).values(**row))
    return token


def shares_of(connection: Connection, account_id: str) -> list[dict[str, Any]]:
    """The shares of an account, the newest first; those of deleted chats are away with them."""
    columns = (shares.c.token, shares.c.chat_id.label("chat"), shares.c.title, shares.c.created_ms)
    query = select(*columns).where(shares.c.account_id == account_id).join_from(shares, chats, _chat())
    rows = connection.execute(query.order_by(shares.c.created_ms.desc(), shares.c.token))
    return [dict(row._mapping) for row in rows]


def take_back(connection: Connection, account_id: str, token: str) -> None:
    """Take a share back, for good. Raises RequestError without it."""
    here = (shares.c.account_id == account_id) & (shares.c.token == token)
    if not connection.execute(delete(shares).where(here)).rowcount:
        raise RequestError("not_found", NO_SHARE)


def share_content(connection: Connection, token: str) -> dict[str, Any]:
    """The title, time and content of a share, for whoever has its token. Raises RequestError without it."""
    columns = (shares.c.title, shares.c.created_ms, shares.c.content)
    query = select(*columns).where(shares.c.token == token).join_from(shares, chats, _chat())
    row = connection.execute(query).first()
    if row is None:
        raise RequestError("not_found", NO_SHARE)
    return dict(row._mapping)


def _chat() -> ColumnElement[bool]:
    """The condition for the chat of a share, which was not deleted."""
    same = (chats.c.account_id == shares.c.account_id) & (chats.c.id == shares.c.chat_id)
    return same & chats.c.deleted_ms.is_(None)


def _branch(connection: Connection, account_id: str, chat_id: str, leaf: str) -> list[dict[str, Any]]:
    """The messages from the first one to the leaf. Raises RequestError as `share_branch` does."""
    here = (messages.c.account_id == account_id) & (messages.c.chat_id == chat_id)
    columns = (messages.c.id, messages.c.parent, messages.c.server_id, messages.c.num_bytes)
    rows = {row.id: row for row in connection.execute(select(*columns).where(here))}
    if leaf not in rows:
        raise RequestError("not_found", "this chat has no such message", field="leaf")
    branch: dict[str, Any] = {}
    row: Any = rows[leaf]
    while row is not None and row.id not in branch:  # a hostile client may close a circle
        branch[row.id] = row
        row = rows.get(row.parent)
    if any(row.server_id is not None for row in branch.values()):
        raise RequestError("conflict", "an answer is being written; share it when it has ended")
    if sum(row.num_bytes for row in branch.values()) > 2 * MAX_BYTES:  # texts of attachments are left out
        raise RequestError("too_large", TOO_MUCH)
    parts = messages_of(connection, account_id, chat_id, list(reversed(branch)))
    return [_public(message) for message in parts]


def _public(message: dict[str, Any]) -> dict[str, Any]:
    """A message without what is its owner's: texts of files, costs, and errors, which may say a balance."""
    names = [{"name": attachment["name"], "text": ""} for attachment in message["attachments"]]
    times = {name: value for name, value in message["figures"].items() if name == "thinking_s"}
    return {**message, "attachments": names, "figures": times, "error": None}
