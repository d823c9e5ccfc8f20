"""The memory of an account: facts that it lets be kept. Statements on a connection, for one transaction."""

import secrets
from typing import Any

from sqlalchemy import Connection, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from shoestring.serve.backends.errors import RequestError
from shoestring.serve.storage.tables import memory, memory_facts

MAX_FACTS = 200
"""Facts of an account."""


def memory_of(connection: Connection, account_id: str) -> dict[str, Any]:
    """The memory of an account, the oldest fact first. It is off until it is switched on."""
    columns = (memory_facts.c.id, memory_facts.c.text, memory_facts.c.created_ms)
    query = select(*columns).where(memory_facts.c.account_id == account_id)
    rows = connection.execute(query.order_by(memory_facts.c.created_ms, memory_facts.c.id))
    return {"is_on": _is_on(connection, account_id), "facts": [dict(row._mapping) for row in rows]}


def switch(connection: Connection, account_id: str, *, is_on: bool) -> None:
    """Switch the memory on or off; its facts stay until they are erased."""
    statement = update(memory).where(memory.c.account_id == account_id).values(is_on=int(is_on))
    if connection.execute(statement).rowcount:
        return
    try:
        with connection.begin_nested():
            connection.execute(insert(memory).values(account_id=account_id, is_on=int(is_on)))
    except IntegrityError:  # another process has done it just now
        connection.execute(statement)


def add_fact(connection: Connection, account_id: str, text: str, time_ms: int) -> dict[str, Any]:
    """Keep a fact. Raises RequestError when the memory is off or full."""
    if not _is_on(connection, account_id):
        raise RequestError("conflict", "the memory is off; switch it on first")
    query = select(func.count()).where(memory_facts.c.account_id == account_id)
    if connection.execute(query).scalar_one() >= MAX_FACTS:
        raise RequestError("conflict", f"the memory has {MAX_FACTS} facts, which is the most; erase one")
    fact = {"id": secrets.token_urlsafe(9), "text": text, "created_ms": time_ms}
    connection.execute(insert(memory_facts).values(account_id=account_id, **fact))
    return fact


def erase_facts(connection: Connection, account_id: str, fact_id: str | None = None) -> None:
    """Erase a fact, or all. Raises RequestError without such a fact."""
    here = memory_facts.c.account_id == account_id
    if fact_id is not None:
        here &= memory_facts.c.id == fact_id
    if not connection.execute(delete(memory_facts).where(here)).rowcount and fact_id is not None:
        raise RequestError("not_found", "there is no such fact")


def _is_on(connection: Connection, account_id: str) -> bool:
    row = connection.execute(select(memory.c.is_on).where(memory.c.account_id == account_id)).first()
    return row is not None and bool(row.is_on)
