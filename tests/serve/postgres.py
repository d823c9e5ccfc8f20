"""A PostgreSQL server for the tests: on a free port, in a folder that goes with it."""

import os
import shutil
import socket
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

USER = "nobody"
"""PostgreSQL refuses to run as root."""


def postgres_programs() -> Path | None:
    """The folder with initdb and pg_ctl; None when PostgreSQL is not installed."""
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    found = shutil.which("initdb")
    return debian[-1] if debian else Path(found).parent if found else None


@contextmanager
def running_postgres(programs: Path) -> Iterator[str]:
    """The URL of a server that runs for so long, without its database's name."""
    with (
        tempfile.TemporaryDirectory(prefix="postgres-") as name,
        socket.create_server(("127.0.0.1", 0)) as free,
    ):
        port = free.getsockname()[1]
        free.close()
        folder = Path(name)
        is_root = os.geteuid() == 0
        if is_root:
            shutil.chown(folder, USER)
        options = {"user": USER} if is_root else {}
        data, log = str(folder / "data"), str(folder / "log")

        def call(program: str, *arguments: str) -> None:
            command = [str(programs / program), "-D", data, *arguments]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=folder, **options)

        call("initdb", "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync")
        settings = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off"
        call("pg_ctl", "-w", "-l", log, "-o", settings, "start")
        try:
            yield f"postgresql://postgres@127.0.0.1:{port}"
        finally:
            call("pg_ctl", "-m", "immediate", "stop")


@contextmanager
def empty_database(server_url: str) -> Iterator[str]:
    """The URL of a new database on a server."""
    name = f"test_{uuid.uuid4().hex}"
    with psycopg.connect(f"{server_url}/postgres", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
        try:
            yield f"{server_url}/{name}"
        finally:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
