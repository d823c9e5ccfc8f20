"""Migrations: the tables of a database get this version's form in one transaction, under a lock."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, make_url, text
from sqlalchemy.exc import SQLAlchemyError

from shoestring.errors import ConfigError
from shoestring.serve.storage.engines import make_private, writing_engine

LOCK = 7_405_210_188
"""The number of the advisory lock that migrations take on PostgreSQL."""


def latest_revision() -> str:
    """The revision of the tables that this version works with."""
    return str(ScriptDirectory.from_config(_config()).get_current_head())


def revision(url: str) -> str | None:
    """The revision of a database; None for one without tables. Raises ConfigError if it cannot be opened."""
    with transaction(writing_engine(url)) as connection:
        return MigrationContext.configure(connection).get_current_revision()


def present_revision(connection: Connection) -> str | None:
    """The revision of the tables; None without any. Raises ConfigError for one newer than this version."""
    present = MigrationContext.configure(connection).get_current_revision()
    _check_known(present)
    return present


def migrate(url: str) -> tuple[str | None, str]:
    """Bring the tables to this version's form: (revision before, revision after).

    All or nothing: a migration that fails leaves the database as it was. Raises ConfigError when the database
    cannot be opened, or is newer than this version.
    """
    make_private(url)
    with transaction(writing_engine(url)) as connection:
        return upgrade(connection)


def upgrade(connection: Connection, target: str | None = None) -> tuple[str | None, str]:
    """Bring tables to a revision, by default this version's: (revision before, revision after).

    Other processes that migrate wait for the end of the transaction. Raises ConfigError for tables that are
    newer than this version.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
    before = present_revision(connection)
    config = _config()
    config.attributes["connection"] = connection
    target = target or latest_revision()
    command.upgrade(config, target)
    return before, target


def check_revision(url: str) -> None:
    """Raise ConfigError when the tables have another form than this version works with."""
    present = revision(url)
    _check_known(present)
    if present != latest_revision():
        raise ConfigError(
            f"the database has tables of revision {present or 'none'}, and this version needs "
            f"{latest_revision()}; run `shoestring database migrate --database {make_url(url)}`"
        )


def _check_known(present: str | None) -> None:
    revisions = {script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()}
    if present is not None and present not in revisions:
        raise ConfigError(
            f"the database has tables of revision {present}, which is newer than this version; "
            "install the version that wrote it"
        )


@contextmanager
def transaction(engine: Engine) -> Iterator[Connection]:
    """A connection in the only transaction of an engine. Raises ConfigError for the database's errors."""
    try:
        with engine.begin() as connection:
            yield connection
    except SQLAlchemyError as error:
        reason = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
        raise ConfigError(f"the database cannot be used: {reason}") from None
    finally:
        engine.dispose()


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")))
    return config
