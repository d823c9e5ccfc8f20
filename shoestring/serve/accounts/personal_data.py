"""A person's data: all of it in one document, and its deletion."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Table, delete, select, tuple_

from shoestring.serve.backends.errors import RequestError
from shoestring.serve.ledger.operations import balance
from shoestring.serve.storage.tables import (
    accounts,
    admin_actions,
    api_keys,
    chats,
    devices,
    identities,
    links,
    memory,
    memory_facts,
    messages,
    operations,
    recovery_codes,
    sessions,
    shares,
    translation_resources,
    translation_usage,
    usage_days,
)

SECRETS = ("digest", "password_hash", "totp_nonce", "totp_step", "idempotency_key")
"""Columns that are worth nothing to the person and something to a thief."""
OWN_TABLES = (
    *(identities, api_keys, sessions, devices, recovery_codes, links, memory, memory_facts),
    *(translation_resources, translation_usage),
)
"""Tables that go with the account."""
CHAT_TABLES = (shares, messages, chats)
"""The same, too long to be in memory at once."""


def export(connection: Connection, account_id: str) -> dict[str, Any]:
    """Everything but chats that is kept about an account, without the digests of secrets."""
    tables = {"accounts": accounts.c.id}
    tables |= {
        table.name: table.c.account_id for table in (*OWN_TABLES, operations, usage_days, admin_actions)
    }
    data: dict[str, Any] = {}
    for name, column in tables.items():
        rows = connection.execute(select(column.table).where(column == account_id))
        data[name] = [
            {field: value for field, value in row._mapping.items() if field not in SECRETS} for row in rows
        ]
    return data | {"balance": vars(balance(connection, account_id))}


def chat_keys(connection: Connection, account_id: str, table: Table) -> list[tuple[Any, ...]]:
    """The keys of an account's rows in one of CHAT_TABLES."""
    query = select(*table.primary_key.columns).where(table.c.account_id == account_id)
    return [tuple(row) for row in connection.execute(query)]


def chat_rows(connection: Connection, table: Table, keys: Sequence[tuple[Any, ...]]) -> list[dict[str, Any]]:
    """The rows with some of these keys."""
    query = select(table).where(tuple_(*table.primary_key.columns).in_(keys))
    rows = connection.execute(query)
    return [{name: value for name, value in row._mapping.items() if name != "folded"} for row in rows]


def erase(connection: Connection, account_id: str) -> None:
    """Delete an account and what belongs to it; money and usage stay, under its number, for the books.

    Raises RequestError while a request of the account is under way.
    """
    if balance(connection, account_id).held:
        raise RequestError("conflict", "a request of yours is under way; try again when it has ended")
    for table in (*OWN_TABLES, *CHAT_TABLES):
        connection.execute(delete(table).where(table.c.account_id == account_id))
    connection.execute(delete(accounts).where(accounts.c.id == account_id))
