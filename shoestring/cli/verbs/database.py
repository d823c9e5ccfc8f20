"""`shoestring database`: migrate, check, back up and restore the database of the service."""

from pathlib import Path
from typing import Annotated

import typer

from shoestring.cli.options import Json
from shoestring.cli.output import print_fields, print_json

app = typer.Typer(
    help="Migrate, check, back up and restore the service's database.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
Database = Annotated[
    str,
    typer.Option(
        help="sqlite:///file or postgresql://user@host/name; by default the file in the user's data folder. "
        "Give the password by PGPASSWORD or ~/.pgpass.",
        envvar="SHOESTRING_DATABASE",
    ),
]


@app.command()
def migrate(*, database: Database = "") -> None:
    """Give the tables this version's form, in one transaction; make a backup first."""
    from shoestring.serve.storage import migrate as migrations
    from shoestring.serve.storage.lock import database_lock

    url = _url(database)
    with database_lock(url):
        before, after = migrations.migrate(url)
    print(f"revision {after}" if before == after else f"revision {before or 'none'} -> {after}")


@app.command()
def check(*, database: Database = "", as_json: Json = False) -> None:
    """Check the file, the revision and every sum of the ledger; a service may be running."""
    from shoestring.serve.storage import backup as backups

    _print(backups.check(_url(database)), as_json)


@app.command()
def backup(
    file: Annotated[Path, typer.Argument(help="The new file.")],
    *,
    database: Database = "",
    as_json: Json = False,
) -> None:
    """Copy the database of one moment to a file, and check the copy; a service may be running.

    The file is SQLite's, also of PostgreSQL, and can be restored into either. Keep it as safe as the
    database: it has digests of keys and passwords, addresses and money, but no prompts.
    """
    from shoestring.serve.storage import backup as backups

    _print(backups.backup(_url(database), file), as_json)


@app.command()
def restore(
    file: Annotated[Path, typer.Argument(help="A backup.")],
    *,
    database: Database = "",
    replace: Annotated[bool, typer.Option("--replace", help="Delete what the database has.")] = False,
    as_json: Json = False,
) -> None:
    """Fill an empty database with a backup, in one transaction, and check it; end the service first."""
    from shoestring.serve.storage import backup as backups

    _print(backups.restore(file, _url(database), replace=replace), as_json)


def _url(database: str) -> str:
    """The database that is named, or the one that `shoestring serve` takes without further words."""
    from shoestring.serve.config import ServiceConfig
    from shoestring.serve.hosting import database_url

    return database or database_url(ServiceConfig())


def _print(counts: dict[str, int], as_json: bool) -> None:
    """Print the rows of each table."""
    if as_json:
        print_json(counts)
    else:
        print_fields(counts)
