"""The characters and documents that an account translated, by month."""

from datetime import UTC, datetime

from sqlalchemy import Connection, select
from sqlalchemy.dialects import postgresql, sqlite

from shoestring.serve.storage.tables import translation_usage as table


def month() -> str:
    """The present month, in UTC."""
    return datetime.now(UTC).strftime("%Y-%m")


def add_usage(connection: Connection, account_id: str, characters: int, documents: int = 0) -> None:
    """Count a translation."""
    counts = {"characters": characters, "documents": documents}
    dialect = sqlite if connection.dialect.name == "sqlite" else postgresql
    statement = dialect.insert(table).values(account_id=account_id, month=month(), **counts)
    sums = {name: table.c[name] + statement.excluded[name] for name in counts}
    connection.execute(statement.on_conflict_do_update(index_elements=("account_id", "month"), set_=sums))


def usage_of(connection: Connection, account_id: str) -> tuple[int, int]:
    """The characters and documents of this month."""
    query = select(table.c.characters, table.c.documents)
    row = connection.execute(query.where(table.c.account_id == account_id, table.c.month == month())).first()
    return (row.characters, row.documents) if row else (0, 0)
