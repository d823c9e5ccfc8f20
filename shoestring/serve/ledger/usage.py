"""Usage by day, key, account and model."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, select
from sqlalchemy.dialects import postgresql, sqlite

from shoestring.serve.backends.reply import Usage
from shoestring.serve.ledger.caps import periods
from shoestring.serve.storage.tables import usage_days

KEYS = ("day", "account_id", "key_id", "model")
SUMS = ("requests", "cached_tokens", "missed_tokens", "completion_tokens", "charge")


@dataclass(frozen=True, kw_only=True)
class UsageDay:
    """The use of one model by one key (or a person's session) on one day."""

    day: str
    account_id: str
    key_id: str
    """Empty for a session."""
    model: str
    requests: int
    cached_tokens: int
    missed_tokens: int
    completion_tokens: int
    charge: int
    """Nanos."""


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
    connection: Connection, first_day: str, last_day: str, account_id: str | None = None
) -> list[UsageDay]:
    """Usage of the days from the first to the last one, of one account or of all."""
    query = select(usage_days).where(usage_days.c.day.between(first_day, last_day))
    if account_id is not None:
        query = query.where(usage_days.c.account_id == account_id)
    rows = connection.execute(query.order_by(*(usage_days.c[name] for name in KEYS)))
    return [UsageDay(**row._mapping) for row in rows]
