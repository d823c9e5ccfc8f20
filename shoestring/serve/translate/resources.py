"""Glossaries and style rules in the database: statements on a connection, each about one account."""

import json
import time
import uuid
from collections.abc import Callable
from typing import Any, Literal

from sqlalchemy import ColumnElement, Connection, Row, delete, func, insert, select, update

from shoestring.serve.backends.errors import RequestError
from shoestring.serve.storage.tables import translation_resources as table

Kind = Literal["glossary", "style"]
MAX_RESOURCES = 1000
"""Glossaries and style rules of an account."""
MAX_BYTES = 64 << 20
"""Of them together."""


def add(connection: Connection, account_id: str, kind: Kind, content: Any) -> dict[str, Any]:
    """Keep a new one: its fields. Raises RequestError for one too many."""
    text = json.dumps(content, ensure_ascii=False)
    _check_room(connection, account_id, len(text))
    now_ms = time.time_ns() // 10**6
    resource_id = str(uuid.uuid4())
    values = {"id": resource_id, "account_id": account_id, "kind": kind, "content": text}
    connection.execute(insert(table).values(**values, created_ms=now_ms, changed_ms=now_ms))
    return find(connection, account_id, kind, resource_id)


def find(connection: Connection, account_id: str, kind: Kind, resource_id: str) -> dict[str, Any]:
    """One of an account, by its id. Raises RequestError."""
    row = connection.execute(select(table).where(_own(account_id, kind, resource_id))).first()
    if row is None:
        raise RequestError("not_found", f"there is no such {_name(kind)}")
    return _fields(row)


def find_all(connection: Connection, account_id: str, kind: Kind) -> list[dict[str, Any]]:
    """All of an account, the oldest first."""
    query = select(table).where(table.c.account_id == account_id, table.c.kind == kind)
    return [_fields(row) for row in connection.execute(query.order_by(table.c.created_ms, table.c.id))]


def change(
    connection: Connection,
    account_id: str,
    kind: Kind,
    resource_id: str,
    work: Callable[[dict[str, Any]], object],
) -> dict[str, Any]:
    """Change the content of one by `work`, which gets its fields: its fields then. Raises RequestError."""
    query = select(table).where(_own(account_id, kind, resource_id)).with_for_update()
    row = connection.execute(query).first()
    if row is None:
        raise RequestError("not_found", f"there is no such {_name(kind)}")
    content: dict[str, Any] = json.loads(row.content)
    work(content)
    text = json.dumps(content, ensure_ascii=False)
    _check_room(connection, account_id, len(text) - len(row.content), num_new=0)
    values = {"content": text, "changed_ms": time.time_ns() // 10**6}
    connection.execute(update(table).where(table.c.id == row.id).values(**values))
    return find(connection, account_id, kind, resource_id)


def remove(connection: Connection, account_id: str, kind: Kind, resource_id: str) -> None:
    """Delete one. Raises RequestError."""
    if not connection.execute(delete(table).where(_own(account_id, kind, resource_id))).rowcount:
        raise RequestError("not_found", f"there is no such {_name(kind)}")


def _own(account_id: str, kind: Kind, resource_id: str) -> ColumnElement[bool]:
    """The condition for one of an account. Raises RequestError for what is no id."""
    try:
        resource_id = str(uuid.UUID(resource_id))
    except ValueError:
        raise RequestError("invalid", f"Invalid {_name(kind)} id {resource_id[:40]!r}") from None
    return (table.c.id == resource_id) & (table.c.account_id == account_id) & (table.c.kind == kind)


def _fields(row: Row[Any]) -> dict[str, Any]:
    fields: dict[str, Any] = json.loads(row.content)
    return {"id": row.id, "created_ms": row.created_ms, "changed_ms": row.changed_ms, **fields}


def _check_room(connection: Connection, account_id: str, num_bytes: int, num_new: int = 1) -> None:
    columns = (func.count(), func.coalesce(func.sum(func.length(table.c.content)), 0))
    number, total = connection.execute(select(*columns).where(table.c.account_id == account_id)).one()
    if number + num_new > MAX_RESOURCES or total + num_bytes > MAX_BYTES:
        sentence = f"an account has at most {MAX_RESOURCES} glossaries and style rules"
        raise RequestError("balance", f"{sentence}, and {MAX_BYTES >> 20} MiB of them; delete some")


def _name(kind: Kind) -> str:
    return "glossary" if kind == "glossary" else "style rule"
