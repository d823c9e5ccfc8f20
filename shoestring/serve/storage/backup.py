"""Backups: one snapshot of a database, as a SQLite file from which both kinds can be restored."""

import os
import sqlite3
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection, MetaData, Table, func, insert, inspect, select, text

from shoestring.durable import storage_errors, sync
from shoestring.errors import ConfigError, DataError
from shoestring.serve.ledger.audit import audit
from shoestring.serve.ledger.servers import DEAD_AFTER_S
from shoestring.serve.storage.engines import (
    make_private,
    reading_engine,
    sqlite_file,
    sqlite_url,
    writing_engine,
)
from shoestring.serve.storage.lock import database_lock
from shoestring.serve.storage.migrate import latest_revision, present_revision, transaction, upgrade
from shoestring.serve.storage.tables import metadata, servers

REVISIONS = "alembic_version"
"""The table with the revision, which migrations write."""
ROWS = 1000
"""Rows in memory at a time."""
Counts = dict[str, int]
"""Rows by table."""


def backup(url: str, target: Path) -> Counts:
    """Copy a database that may be in use to a new file, which is checked before it gets its name.

    Raises ConfigError for a database that cannot be used or a file that exists, StorageError for a folder
    that cannot be written, DataError when the database is damaged.
    """
    if target.exists():
        raise ConfigError(f"{target} exists; choose another name")
    part = target.with_name(f"{target.name}.part")
    with storage_errors(target, 0):
        _remove(part)
    try:
        make_private(sqlite_url(part))
        with _snapshot(url) as source, transaction(writing_engine(sqlite_url(part))) as copy:
            upgrade(copy, _revision(source))
            counts = _copy(source, copy, _tables(copy))
        _leave_wal(part)
        if check(sqlite_url(part)) != counts:
            raise DataError(f"{part} has other numbers of rows than were read")
        with storage_errors(target, part.stat().st_size):
            sync(part)
            os.rename(part, target)
            sync(target.parent)
    finally:
        _remove(part)
    return counts


def check(url: str) -> Counts:
    """Check a database or a backup: the file, its revision, and the ledger. Returns the rows by table.

    Raises ConfigError for one that is not the service's or newer than this version, DataError for damage.
    """
    name = sqlite_file(url) or "the database"
    with _snapshot(url) as connection:
        if connection.dialect.name == "sqlite":
            for row in connection.execute(text("PRAGMA integrity_check")):
                if row[0] != "ok":
                    raise DataError(f"{name} is damaged: {row[0]}")
        if _revision(connection) == latest_revision():  # an older ledger is audited once it is migrated
            _audit(connection, str(name))
        names = None if connection.dialect.name == "sqlite" else metadata.tables
        return {table.name: _count(connection, table) for table in _tables(connection, names)}


def restore(file: Path, url: str, *, replace: bool = False) -> Counts:
    """Fill a database with a backup, in one transaction; `replace` deletes what it has.

    An older backup is migrated to this version's tables. Raises ConfigError when the database has rows and
    `replace` is False, or when a service uses it; and as `check` does.
    """
    counts = check(sqlite_url(file))
    make_private(url)
    with (
        database_lock(url),
        transaction(writing_engine(url)) as database,
        _snapshot(sqlite_url(file)) as copy,
    ):
        tables = _tables(copy)
        _remove_tables(database, {table.name for table in tables} | {*metadata.tables}, replace=replace)
        upgrade(database, _revision(copy))
        if _copy(copy, database, tables) != counts:
            raise DataError(f"{file} changed while it was read")
        _set_sequences(database, tables)
        upgrade(database)
        _audit(database, str(file))
    return counts


@contextmanager
def _snapshot(url: str) -> Iterator[Connection]:
    """A connection that sees one moment of a database that exists."""
    file = sqlite_file(url)
    if file is not None and not file.is_file():
        raise ConfigError(f"there is no database {file}")
    with transaction(reading_engine(url, 1)) as connection:
        yield connection


def _copy(source: Connection, target: Connection, tables: Sequence[Table]) -> Counts:
    """Copy all rows between databases of one revision."""
    return {table.name: _copy_table(source, target, table) for table in tables}


def _copy_table(source: Connection, target: Connection, table: Table) -> int:
    count = 0
    with source.execute(select(table).execution_options(yield_per=ROWS)) as rows:
        for part in rows.mappings().partitions():
            target.execute(insert(table), [dict(row) for row in part])
            count += len(part)
    return count


def _tables(connection: Connection, names: Collection[str] | None = None) -> list[Table]:
    """The tables of a database, all but the revision's or those with these names, parents before children."""
    present = set(inspect(connection).get_table_names()) - {REVISIONS}
    schema = MetaData()
    schema.reflect(connection, only=sorted(present if names is None else present.intersection(names)))
    return schema.sorted_tables


def _revision(connection: Connection) -> str:
    revision = present_revision(connection)
    if revision is None:
        raise ConfigError("this database has no tables of the service")
    return revision


def _remove_tables(database: Connection, names: Collection[str], *, replace: bool) -> None:
    """Drop the service's tables, and no others."""
    present_revision(database)
    present = _tables(database, names)
    if any(_count(database, table) for table in present):
        if not replace:
            raise ConfigError("the database is not empty; --replace deletes what it has")
        _refuse_living(database)
    if inspect(database).has_table(REVISIONS):
        Table(REVISIONS, MetaData()).drop(database)
    for table in reversed(present):
        table.drop(database)


def _refuse_living(database: Connection) -> None:
    """Raise ConfigError when a process of the service was seen a moment ago."""
    since_s = int(time.time()) - DEAD_AFTER_S
    query = select(func.count()).select_from(servers).where(servers.c.seen_s >= since_s)
    if database.dialect.name == "postgresql" and database.execute(query).scalar_one():
        raise ConfigError(f"processes answer from this database; end them and wait {DEAD_AFTER_S} s")


def _set_sequences(database: Connection, tables: Sequence[Table]) -> None:
    """Let PostgreSQL count on after the rows that came with their numbers; SQLite does so itself."""
    if database.dialect.name != "postgresql":
        return
    for table in tables:
        for column in table.primary_key.columns:
            sequence = select(func.pg_get_serial_sequence(table.name, column.name))
            if (name := database.execute(sequence).scalar_one()) is None:
                continue
            last = database.execute(select(func.max(column))).scalar_one()
            database.execute(select(func.setval(name, last or 1, last is not None)))


def _count(connection: Connection, table: Table) -> int:
    return int(connection.execute(select(func.count()).select_from(table)).scalar_one())


def _audit(connection: Connection, name: str) -> None:
    if sentences := audit(connection):
        more = f", and {len(sentences) - 1} more" if len(sentences) > 1 else ""
        raise DataError(f"the ledger of {name} is wrong: {sentences[0]}{more}")


def _remove(file: Path) -> None:
    """Delete a SQLite database, and what SQLite keeps beside it."""
    for ending in ("", "-wal", "-shm", "-journal"):
        file.with_name(file.name + ending).unlink(missing_ok=True)


def _leave_wal(file: Path) -> None:
    """Make a SQLite database one file that can be read from any place, also one that cannot be written."""
    connection = sqlite3.connect(file)
    try:
        connection.execute("PRAGMA journal_mode=DELETE").fetchall()
    finally:
        connection.close()
