"""The embedded model behind the service, in this process; databases of both kinds."""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from sqlalchemy import Connection
from starlette.testclient import TestClient

from shoestring.device import choose
from shoestring.durable import cache_folder
from shoestring.engine.engine import Engine
from shoestring.engine.load import load_engine
from shoestring.engine.settings import EngineSettings
from shoestring.model.hf.checkpoint import Checkpoint
from shoestring.model.hf.hub import resolve
from shoestring.serve.app import build_app
from shoestring.serve.backends.local import LocalBackend
from shoestring.serve.ledger.meter import Meter
from shoestring.serve.ledger.operations import add_funds
from shoestring.serve.ledger.prices import NANOS
from shoestring.serve.service import Service
from shoestring.serve.storage.database import Database
from shoestring.serve.storage.engines import reading_engine, sqlite_url, writing_engine
from tests.caches import own_cache
from tests.serve.postgres import (
    empty_database,
    make_tables,
    new_database,
    postgres_programs,
    running_postgres,
)
from tests.serve.site import Site, new_site
from tests.serve.sqlite import new_sqlite
from tests.serve.words import PRICES, Words


@pytest.fixture(scope="session")
def new_engine() -> Callable[[], Engine]:
    """Makes engines of mini."""

    def new() -> Engine:
        settings = EngineSettings(max_num_seqs=8, max_model_len=512)
        return load_engine(Checkpoint.open(resolve("mini")), choose("cpu"), settings=settings)

    return new


@pytest.fixture(scope="session")
def new_service(new_engine: Callable[[], Engine]) -> Callable[[], Service]:
    """Makes services of mini, which is called deepseek-chat too."""

    def new() -> Service:
        template = Checkpoint.open(resolve("mini")).template
        backend = LocalBackend("mini", new_engine(), template, sampling={"temperature": 0.6})
        aliases = {"deepseek-chat": "mini"}
        return Service({"mini": backend}, aliases=aliases, sampling={"mini": backend.sampling})

    return new


@pytest.fixture(scope="module")
def client(new_service: Callable[[], Service]) -> Iterator[TestClient]:
    """A client of the app, without a network."""
    with TestClient(
        build_app(new_service()), base_url="http://localhost", raise_server_exceptions=False
    ) as client:
        yield client


@pytest.fixture(scope="module")
def served(new_service: Callable[[], Service]) -> Iterator[tuple[tuple[str, int], Service]]:
    """A service on a real port: (address, service)."""
    service = new_service()
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(build_app(service), log_config=None, lifespan="on"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    yield listener.getsockname(), service
    server.should_exit = True
    thread.join()


@pytest.fixture(scope="session")
def events() -> Callable[[str], list[Any]]:
    """Reads server-sent events: the data of each; [DONE] as text."""

    def read(text: str) -> list[Any]:
        lines = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
        return [line if line == "[DONE]" else json.loads(line) for line in lines]

    return read


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """A PostgreSQL server of the tests' own."""
    programs = postgres_programs()
    if programs is None:
        pytest.skip("PostgreSQL is not installed")
    with running_postgres(programs) as server:
        make_tables(server.url)
        yield server.url


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a database without tables, once of each kind."""
    if request.param == "sqlite":
        yield sqlite_url(tmp_path / "service.db")
        return
    with empty_database(request.getfixturevalue("postgres_url")) as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a database with empty tables, once of each kind."""
    if request.param == "sqlite":
        yield new_sqlite(tmp_path / "service.db")
        return
    with new_database(request.getfixturevalue("postgres_url")) as url:
        yield url


@pytest.fixture
def connection(database_url: str) -> Iterator[Connection]:
    """A connection to a database with tables, in a transaction."""
    engine = writing_engine(database_url)
    with engine.begin() as connection:
        yield connection
    engine.dispose()


@pytest.fixture
def site(database_url: str) -> Iterator[Site]:
    """A service with accounts that runs, on a database of each kind."""
    site = new_site(database_url)
    with site.client:
        yield site


@pytest.fixture
def mail_site(tmp_path: Path) -> Iterator[Site]:
    """A service with accounts that sends mail."""
    site = new_site(new_sqlite(tmp_path / "service.db"), has_mail=True)
    with site.client:
        yield site


@pytest.fixture
def paid(database_url: str) -> Iterator[tuple[TestClient, Words, Callable[..., Any]]]:
    """A service whose requests cost money: (client, backend, how to look at the database)."""
    funded = writing_engine(database_url)
    with funded.begin() as connection:
        add_funds(connection, "funds", "local", "top_up", 10 * NANOS, 0)
    funded.dispose()
    backend = Words()
    service = Service({"words": backend}, meter=Meter(Database(database_url), PRICES))
    reader = reading_engine(database_url, 1)

    def look(work: Callable[[Connection], Any]) -> Any:
        with reader.begin() as connection:
            return work(connection)

    with TestClient(build_app(service), base_url="http://localhost", raise_server_exceptions=False) as client:
        yield client, backend, look
    reader.dispose()


@pytest.fixture
def file_site(tmp_path: Path) -> Iterator[Site]:
    """A service with accounts on a SQLite file, for what is the same on both kinds."""
    site = new_site(new_sqlite(tmp_path / "service.db"))
    with site.client:
        yield site


@pytest.fixture
def quick_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers are written more often than once in a second."""
    monkeypatch.setattr("shoestring.serve.chats.run.WRITE_S", 0.05)
    monkeypatch.setattr("shoestring.serve.chats.run.PLACE_S", 0.02)
    monkeypatch.setattr("shoestring.serve.chats.elsewhere.POLL_S", 0.05)
    monkeypatch.setattr("shoestring.serve.chats.draft.RETRY_S", 0.1)


@pytest.fixture
def model_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of fetched and quantized models, of this test alone; compiled kernels are everybody's."""
    monkeypatch.setenv("XDG_CACHE_HOME", own_cache(tmp_path / "cache"))
    models = cache_folder("models")
    models.mkdir(parents=True)
    return models
