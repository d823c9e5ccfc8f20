"""Usage by day, key, account and model."""

from collections.abc import Sequence
from typing import Any, Literal

from sqlalchemy import Connection, Row, func, select
from sqlalchemy.dialects import postgresql, sqlite

from shoestring.serve.backends.reply import Usage
from shoestring.serve.ledger.caps import periods
from shoestring.serve.storage.tables import usage_days

Group = Literal["day", "account_id", "key_id", "model"]
KEYS: tuple[Group, ...] = ("day", "account_id", "key_id", "model")
"""A row is what one key (empty for a person's session) used of one model on one day, in UTC."""
SUMS = ("requests", "cached_tokens", "missed_tokens", "completion_tokens", "charge")


def add_usage(connection: Connection, operation: Row[Any], usage: Usage, charge: int) -> None:
    """Count an operation that has ended on the day on which it began."""
    row = {
        "day": periods(operation.created_s)["day"],
        "account_id": operation.account_id,
        "key_id": operation.key_id or "",
        "model": operation.model,
        "requests": 1,
        "cached_tokens": usage.cached_tokens,
        "missed_tokens": usage.prompt_tokens - usage.cached_tokens,
        "completion_tokens": usage.completion_tokens,
        "charge": charge,
    }
    dialect = sqlite if connection.dialect.name == "sqlite" else postgresql
    statement = dialect.insert(usage_days).values(**row)
    sums = {name: usage_days.c[name] + statement.excluded[name] for name in SUMS}
    connection.execute(statement.on_conflict_do_update(index_elements=KEYS, set_=sums))


def usage_of(
    connection: Connection,
    first_day: str,
    last_day: str,
    groups: Sequence[Group],
    account_id: str | None = None,
) -> list[dict[str, Any]]:
    """Sums over the days from the first to the last one, of one account or of all, by what is asked for."""
    columns = [usage_days.c[name] for name in groups]
    sums = [func.sum(usage_days.c[name]).label(name) for name in SUMS]
    query = select(*columns, *sums).where(usage_days.c.day.between(first_day, last_day))
    if account_id is not None:
        query = query.where(usage_days.c.account_id == account_id)
    rows = connection.execute(query.group_by(*columns).order_by(*columns)).mappings()
    return [{name: int(value) if name in SUMS else value for name, value in row.items()} for row in rows]
