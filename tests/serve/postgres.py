"""A PostgreSQL server for the tests: on a free port, in a folder that goes with it."""

import os
import shutil
import socket
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg

from shoestring.serve.storage.migrate import migrate

USER = "nobody"
"""PostgreSQL refuses to run as root."""
TABLES = "tables"
"""The database that has this version's tables: others are copies of it, which is quicker than migrations."""


def postgres_programs() -> Path | None:
    """The folder with initdb and pg_ctl; None when PostgreSQL is not installed."""
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    found = shutil.which("initdb")
    return debian[-1] if debian else Path(found).parent if found else None


@dataclass(frozen=True)
class Postgres:
    """A server in a folder of its own."""

    programs: Path
    folder: Path
    port: int

    @property
    def url(self) -> str:
        """The URL of the server, without a database's name."""
        return f"postgresql://postgres@127.0.0.1:{self.port}"

    def create(self) -> None:
        """Make the server's files."""
        self._call("initdb", "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync")

    def start(self) -> None:
        """Start the server, and wait until it answers."""
        settings = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off"
        settings += " -c full_page_writes=off"
        self._call("pg_ctl", "-w", "-l", str(self.folder / "log"), "-o", settings, "start")

    def stop(self) -> None:
        """Stop the server at once, as a crash does."""
        self._call("pg_ctl", "-m", "immediate", "stop")

    def _call(self, program: str, *arguments: str) -> None:
        command = [str(self.programs / program), "-D", str(self.folder / "data"), *arguments]
        options = {"user": USER} if os.geteuid() == 0 else {}
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=self.folder, **options)


@contextmanager
def running_postgres(programs: Path) -> Iterator[Postgres]:
    """A server that runs for so long."""
    with (
        tempfile.TemporaryDirectory(prefix="postgres-") as name,
        socket.create_server(("127.0.0.1", 0)) as free,
    ):
        port = free.getsockname()[1]
        free.close()
        if os.geteuid() == 0:
            shutil.chown(name, USER)
        server = Postgres(programs, Path(name), port)
        server.create()
        server.start()
        try:
            yield server
        finally:
            server.stop()


def make_tables(server_url: str) -> None:
    """Make the database that others are copied from."""
    _execute(server_url, f"CREATE DATABASE {TABLES}")
    migrate(f"{server_url}/{TABLES}")


@contextmanager
def new_database(server_url: str, template: str = TABLES) -> Iterator[str]:
    """The URL of a new database on a server: with tables, or of another template."""
    name = f"test_{uuid.uuid4().hex}"
    _execute(server_url, f"CREATE DATABASE {name} TEMPLATE {template}")
    try:
        yield f"{server_url}/{name}"
    finally:
        _execute(server_url, f"DROP DATABASE {name} WITH (FORCE)")


@contextmanager
def empty_database(server_url: str) -> Iterator[str]:
    """The URL of a new database on a server, without tables."""
    with new_database(server_url, "template0") as url:
        yield url


def _execute(server_url: str, statement: str) -> None:
    with psycopg.connect(f"{server_url}/postgres", autocommit=True) as connection:
        connection.execute(statement)
