"""SQLite databases with this version's tables: copies of one, which is quicker than migrations."""

import tempfile
from functools import cache
from pathlib import Path

from shoestring.serve.storage.engines import sqlite_url
from shoestring.serve.storage.migrate import migrate


def new_sqlite(file: Path) -> str:
    """The URL of a new database with tables in a file."""
    file.touch(0o600)
    file.write_bytes(_tables())
    return sqlite_url(file)


@cache
def _tables() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "tables.db"
        migrate(sqlite_url(file))
        return file.read_bytes()
