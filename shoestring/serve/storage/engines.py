"""Connections to SQLite and PostgreSQL, set up so that what is committed stays and nobody waits for ever."""

import os
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, make_url
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError

from shoestring.errors import ConfigError

TIMEOUT_S = 10
"""The longest that a statement, a lock or a connection takes."""


def checked_url(url: str) -> URL:
    """The parts of a database's URL. Raises ConfigError for one that is neither SQLite nor PostgreSQL."""
    advice = "use sqlite:///file.db or postgresql://user@host/name"
    try:
        parts = make_url(url)
    except ArgumentError:
        raise ConfigError(f"the database's URL has the wrong form; {advice}") from None
    name = parts.get_backend_name()
    if name == "postgresql":
        return parts.set(drivername="postgresql+psycopg")
    if name != "sqlite" or not parts.database or parts.database == ":memory:":
        raise ConfigError(f"the database {parts.render_as_string()} is not supported; {advice}")
    return parts


def sqlite_file(url: str) -> Path | None:
    """The file of a SQLite database; None for PostgreSQL."""
    parts = checked_url(url)
    return Path(parts.database or "") if parts.get_backend_name() == "sqlite" else None


def sqlite_url(file: Path) -> str:
    """The URL of a SQLite database in a file."""
    return URL.create("sqlite", database=str(file)).render_as_string()


def make_private(url: str) -> None:
    """Make the file of a SQLite database that does not exist, for its owner alone. Raises ConfigError."""
    file = sqlite_file(url)
    if file is None or file.exists():
        return
    try:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.close(os.open(file, os.O_WRONLY | os.O_CREAT, 0o600))  # its -wal and -shm get the same mode
    except OSError as error:
        raise ConfigError(f"cannot make the database {file}: {error.strerror}") from None


def writing_engine(url: str) -> Engine:
    """An engine with the one connection that writes."""
    return _engine(url, 1, _sqlite_writer, "BEGIN IMMEDIATE")


def reading_engine(url: str, num_connections: int) -> Engine:
    """An engine whose connections only read, each transaction from one snapshot."""
    return _engine(url, num_connections, _sqlite_reader, "BEGIN", isolation_level="REPEATABLE READ")


def _engine(url: str, num_connections: int, set_up: Any, begin: str, isolation_level: str = "") -> Engine:
    parts = checked_url(url)
    options: dict[str, Any] = {"pool_size": num_connections, "max_overflow": 0, "pool_timeout": TIMEOUT_S}
    options["hide_parameters"] = True  # in logs and errors: they are people's data
    if parts.get_backend_name() == "sqlite":
        engine = create_engine(
            parts, connect_args={"timeout": TIMEOUT_S, "check_same_thread": False}, **options
        )
        event.listen(engine, "connect", set_up)
        event.listen(engine, "begin", lambda connection: _begin(connection, begin))
        return engine
    milliseconds = TIMEOUT_S * 1000
    limits = f"-c statement_timeout={milliseconds} -c lock_timeout={milliseconds}"
    if isolation_level:
        limits += " -c default_transaction_read_only=on"
    arguments = {"connect_timeout": TIMEOUT_S, "options": limits, "tcp_user_timeout": milliseconds}
    if isolation_level:
        options["isolation_level"] = isolation_level
    return create_engine(parts, connect_args=arguments, pool_pre_ping=True, **options)


def _begin(connection: Connection, statement: str) -> None:
    connection.exec_driver_sql(statement)


def _sqlite_writer(connection: Any, record: Any) -> None:
    """FULL: a commit is on the disk before anyone hears of it. Python's own transactions are switched off."""
    connection.isolation_level = None
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "fullfsync=1", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}").fetchall()


def _sqlite_reader(connection: Any, record: Any) -> None:
    connection.isolation_level = None
    for pragma in ("query_only=ON", "wal_autocheckpoint=0"):
        connection.execute(f"PRAGMA {pragma}").fetchall()
