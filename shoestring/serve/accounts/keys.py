"""API keys in the database: shown once, kept as digests, with a scope, an expiry, rates and caps."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, insert, select, update

from shoestring.serve.backends.errors import RequestError
from shoestring.serve.caller import Scope
from shoestring.serve.storage.tables import accounts, api_keys

MAX_KEYS = 100
"""Keys of one account that are in use."""


@dataclass(frozen=True, kw_only=True)
class KeySettings:
    """Rights and limits of a key."""

    name: str = ""
    scope: Scope = "inference"
    expires_s: int | None = None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    day_cap: int | None = None
    """Nanos."""
    month_cap: int | None = None


@dataclass(frozen=True, kw_only=True)
class KeyInfo:
    """A key as its owner sees it later."""

    id: str
    created_s: int
    revoked_s: int | None
    settings: KeySettings


def add_key(
    connection: Connection, key_id: str, digest: str, account_id: str, settings: KeySettings, time_s: int
) -> None:
    """Keep a new key. Raises RequestError when the account has too many."""
    present = [key for key in keys_of(connection, account_id) if key.revoked_s is None]
    if len(present) >= MAX_KEYS:
        raise RequestError("conflict", f"there are {MAX_KEYS} keys in use; revoke one first")
    row = {"id": key_id, "account_id": account_id, "digest": digest, "created_s": time_s}
    connection.execute(insert(api_keys).values(**row, **vars(settings)))


def keys_of(connection: Connection, account_id: str) -> list[KeyInfo]:
    """The keys of an account, the newest first."""
    query = select(api_keys).where(api_keys.c.account_id == account_id)
    rows = connection.execute(query.order_by(api_keys.c.created_s.desc(), api_keys.c.id))
    return [
        KeyInfo(
            id=row.id,
            created_s=row.created_s,
            revoked_s=row.revoked_s,
            settings=KeySettings(**{name: getattr(row, name) for name in KeySettings.__dataclass_fields__}),
        )
        for row in rows
    ]


def revoke_key(connection: Connection, key_id: str, account_id: str, time_s: int) -> None:
    """Revoke a key for good. Raises RequestError when the account has no such key."""
    here = (api_keys.c.id == key_id) & (api_keys.c.account_id == account_id)
    statement = update(api_keys).where(here & api_keys.c.revoked_s.is_(None)).values(revoked_s=time_s)
    if connection.execute(statement).rowcount != 1:
        raise RequestError("not_found", "you have no such key in use")


def find_key(connection: Connection, key_id: str) -> dict[str, Any] | None:
    """A key with its account: columns of the key, and of the account with `account_` before their names."""
    own = [column.label(f"account_{column.name}") for column in accounts.columns if column.name != "id"]
    query = select(api_keys, *own).join(accounts, accounts.c.id == api_keys.c.account_id)
    row = connection.execute(query.where(api_keys.c.id == key_id)).first()
    return dict(row._mapping) if row else None
