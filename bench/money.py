"""Money of the service under SIGKILL, without its database, at the end of a balance, and in every dialect.

    python bench/money.py kills [--database sqlite|postgresql] [--kills 1000] [--seed 0] [--json FILE]
    python bench/money.py outage|balance|dialects [--database sqlite|postgresql] [--seed 0] [--json FILE]

The service is the real one, with accounts, API keys, a ledger and a queue, behind a model of numbers. `kills`
ends its process at random moments while 16 clients ask in every dialect, streamed and not, and repeat with
the same Idempotency-Key what broke; after each start every charge that a client has heard of must be in the
ledger, once, with the amount that the client knows. `outage` stops PostgreSQL under the same load: replies
are whole, or 503 with Retry-After. `balance` sends 1,000 requests at once on a balance for 10. `dialects`
compares the charges of 200 random requests, each in 8 dialects, streamed and not. Exit code 3 for a miss.
"""

import argparse
import asyncio
import contextlib
import hashlib
import json
import multiprocessing
import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for tests.serve.postgres

import httpx2
from money_service import MODEL, Site, price_of, serve, set_up
from sqlalchemy import Connection, select

from shoestring.serve.ledger.audit import audit
from shoestring.serve.ledger.operations import balance
from shoestring.serve.ledger.prices import nanos
from shoestring.serve.server import connections_within, listen
from shoestring.serve.storage.engines import reading_engine
from shoestring.serve.storage.migrate import transaction
from shoestring.serve.storage.tables import operations
from tests.serve.postgres import Postgres, empty_database, postgres_programs, running_postgres

FUNDS = 10**15
NUM_CLIENTS = 16
MOST_S = 0.15
"""The longest that a process lives after its first reply."""
PATHS = (
    *("/v1/chat/completions", "/chat/completions", "/v1/completions", "/v1/responses"),
    *("/v1/messages", "/anthropic/v1/messages", "/api/chat", "/api/generate"),
)


@dataclass(frozen=True)
class Question:
    """A request whose price its sender knows."""

    key: str
    path: str
    stream: bool
    prompt: int
    cached: int
    words: int
    most: int

    @property
    def price(self) -> int:
        return price_of(self.prompt, self.cached, min(self.words, self.most))

    @property
    def digest(self) -> str:
        """The key as the ledger keeps it."""
        return hashlib.sha256(f"0 {self.key}".encode()).hexdigest()

    @property
    def body(self) -> dict[str, Any]:
        text = f"{self.prompt} {self.cached} {self.words}"
        fields: dict[str, Any] = {"model": MODEL, "stream": self.stream}
        if self.path.startswith("/api/"):
            fields |= {"options": {"num_predict": self.most}}
        elif self.path == "/v1/responses":
            return fields | {"input": text, "max_output_tokens": self.most}
        else:
            fields |= {"max_tokens": self.most}
        if self.path in ("/v1/completions", "/api/generate"):
            return fields | {"prompt": text}
        return fields | {"messages": [{"role": "user", "content": text}]}


DEAREST = Question("", "/v1/chat/completions", stream=False, prompt=100, cached=0, words=20, most=20)
"""A question that costs all that is held for it."""


@dataclass
class Books:
    """The knowledge of the clients."""

    chance: random.Random
    questions: dict[str, Question] = field(default_factory=dict)
    """All that were asked, by the digest of their keys."""
    known: list[Question] = field(default_factory=list)
    """Those whose charge a client has heard of."""
    statuses: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    num_waiting: int = 0

    def new(self) -> Question:
        """A random question."""
        prompt, words = self.chance.randint(1, 400), self.chance.randint(1, 20)
        numbers = (prompt, self.chance.randint(0, prompt), words, self.chance.randint(1, 30))
        number, path = len(self.questions), self.chance.choice(PATHS)
        question = Question(f"order {number}", path, self.chance.random() < 0.5, *numbers)
        self.questions[question.digest] = question
        return question


async def post(client: httpx2.AsyncClient, question: Question) -> tuple[httpx2.Response, str]:
    """A whole reply, with its text. Raises TransportError when the connection breaks before its end."""
    headers = {"Idempotency-Key": question.key}
    async with client.stream("POST", question.path, json=question.body, headers=headers) as reply:
        return reply, (await reply.aread()).decode()


async def ask(client: httpx2.AsyncClient, books: Books, question: Question) -> None:
    """Ask until the answer is known; what broke is asked again with the same key."""
    while True:
        try:
            books.num_waiting += 1
            reply, text = await post(client, question)
        except httpx2.TransportError:
            books.statuses["broken"] += 1
            await asyncio.sleep(0.005)
            continue
        finally:
            books.num_waiting -= 1
        books.statuses[str(reply.status_code)] += 1
        if reply.status_code == 503 and "retry-after" in reply.headers:
            await asyncio.sleep(0.1)
            continue
        if reply.status_code == 200:
            check_reply(books, question, reply, text)
        elif reply.status_code != 409:
            books.faults.append(f"{question.path} answered {reply.status_code}: {text[:200]}")
        return


def check_reply(books: Books, question: Question, reply: httpx2.Response, text: str) -> None:
    """Note a reply whose charge is known now."""
    if not question.stream:
        cost = nanos(reply.headers["x-request-cost"].split()[0])
        if cost != question.price:
            books.faults.append(f"{question} cost {cost}, not {question.price}")
    elif '"error"' in text and '"error":null' not in text.replace(" ", ""):
        books.faults.append(f"{question.path} broke off: {text[-200:]}")
        return
    books.known.append(question)


class Ledger:
    """A look at the database beside the service."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def look(self, work: Callable[[Connection], Any]) -> Any:
        """The result of statements, on a connection that is closed at once."""
        with transaction(reading_engine(self._site.config.database, 1)) as connection:
            return work(connection)

    def check_known(self, questions: list[Question]) -> list[str]:
        """One sentence for each charge that clients know and the ledger does not."""
        columns = (operations.c.idempotency_key, operations.c.charge, operations.c.ended_s)
        faults = []
        for start in range(0, len(questions), 500):
            part = {question.digest: question for question in questions[start : start + 500]}
            query = select(*columns).where(operations.c.idempotency_key.in_(part))
            rows = {row[0]: row for row in self.look(lambda c, q=query: c.execute(q).all())}
            for digest, question in part.items():
                row = rows.get(digest)
                if row is None or row.ended_s is None or row.charge != question.price:
                    faults.append(f"{question} is {row} in the ledger, not {question.price}")
        return faults

    def check_all(self, books: Books) -> list[str]:
        """One sentence for each sum that is wrong, and for each operation that nobody or two asked for."""
        query = select(operations).where(operations.c.kind == "usage")
        rows = self.look(lambda connection: connection.execute(query).all())
        faults = self.check_known(books.known) + self.look(audit)
        times = Counter(row.idempotency_key for row in rows if row.idempotency_key)
        faults += [f"{digest} was booked {count} times" for digest, count in times.items() if count > 1]
        for row in rows:  # those without a key never ran
            question = books.questions.get(row.idempotency_key)
            if row.charge > (question.price if question else 0):
                faults.append(f"{row} was charged for {question}")
        present = self.look(lambda connection: balance(connection, self._site.account_id))
        charges = sum(row.charge for row in rows)
        if present.total + charges != self._site.funds or present.held:
            faults.append(f"{present} and charges of {charges} are not {self._site.funds}")
        return faults

    async def settled(self) -> bool:
        """Wait for the end of all operations, at most two minutes."""
        query = select(operations.c.id).where(operations.c.ended_s.is_(None))
        for _ in range(240):
            if not await asyncio.to_thread(self.look, lambda connection: connection.execute(query).first()):
                return True
            await asyncio.sleep(0.5)
        return False


@dataclass
class Stage:
    """A service that can be ended and started again, its clients, and a look at its database."""

    site: Site
    books: Books
    postgres: Postgres | None = None

    def __post_init__(self) -> None:
        self.ledger = Ledger(self.site)
        self.listener = listen("127.0.0.1", 0)
        self._context = multiprocessing.get_context("forkserver")
        self.process = self.start()

    def start(self) -> Any:
        """A new process that serves."""
        self.process = self._context.Process(target=serve, args=(self.site, self.listener))
        self.process.start()
        return self.process

    def client(self, num_connections: int) -> httpx2.AsyncClient:
        """A client with the key."""
        limits = httpx2.Limits(max_connections=num_connections)
        headers = {"Authorization": f"Bearer {self.site.key}"}
        url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        return httpx2.AsyncClient(base_url=url, headers=headers, limits=limits, timeout=120, trust_env=False)

    async def kill(self) -> None:
        """End the process by SIGKILL."""
        self.process.kill()
        await asyncio.to_thread(self.process.join)

    @contextlib.asynccontextmanager
    async def load(self) -> Any:
        """Clients that ask one question after another; they get their last answers at the end."""
        is_over = asyncio.Event()

        async def run(client: httpx2.AsyncClient) -> None:
            while not is_over.is_set():
                await ask(client, self.books, self.books.new())

        async with self.client(NUM_CLIENTS) as client, asyncio.TaskGroup() as group:
            for _ in range(NUM_CLIENTS):
                group.create_task(run(client))
            yield
            is_over.set()


async def check_kills(stage: Stage, num_kills: int) -> dict[str, Any]:
    """Kill the process again and again under load."""
    books, waiting, num_checked = stage.books, [], 0
    async with stage.load():
        for _ in range(num_kills):
            if books.chance.random() < 0.1:  # also while it starts
                await asyncio.sleep(books.chance.uniform(0, 2 * MOST_S))
            else:
                present, deadline = len(books.known), time.monotonic() + 60
                while len(books.known) == present and time.monotonic() < deadline:
                    await asyncio.sleep(0.002)
                new = books.known[num_checked:]
                books.faults += await asyncio.to_thread(stage.ledger.check_known, new)
                num_checked += len(new)
                await asyncio.sleep(books.chance.uniform(0, MOST_S))
            waiting.append(books.num_waiting)
            await stage.kill()
            stage.start()
    return {"kills": num_kills, "requests_under_way_at_a_kill": sum(waiting) / len(waiting)}


async def check_outage(stage: Stage, num_outages: int = 5) -> dict[str, Any]:
    """Stop the database under load, and start it again."""
    assert stage.postgres is not None
    async with stage.load():
        for _ in range(num_outages):
            await asyncio.sleep(stage.books.chance.uniform(1, 2))
            await asyncio.to_thread(stage.postgres.stop)
            await asyncio.sleep(stage.books.chance.uniform(1, 3))
            await asyncio.to_thread(stage.postgres.start)
        await asyncio.sleep(1)
    return {"outages": num_outages}


async def check_balance(stage: Stage, num_requests: int = 1000) -> dict[str, Any]:
    """Send many requests at once on a balance for ten."""
    questions = [replace(DEAREST, key=f"order {number}") for number in range(num_requests)]
    stage.books.questions = {question.digest: question for question in questions}
    async with stage.client(num_requests) as client:
        replies = await asyncio.gather(*(post(client, question) for question in questions))
    stage.books.statuses = Counter(str(reply.status_code) for reply, _ in replies)
    if stage.books.statuses != {"200": 10, "402": num_requests - 10}:
        stage.books.faults.append(f"not 10 were served: {stage.books.statuses}")
    return {"requests_at_once": num_requests}


async def check_dialects(stage: Stage, num_requests: int = 200) -> dict[str, Any]:
    """Ask random questions in every dialect, streamed and not, and compare their charges."""
    books, few = stage.books, asyncio.Semaphore(NUM_CLIENTS)
    kinds = [(path, stream) for path in PATHS for stream in (False, True)]
    originals = [books.new() for _ in range(num_requests)]
    books.questions.clear()

    async def run(client: httpx2.AsyncClient, question: Question) -> None:
        async with few:
            await ask(client, books, question)

    async with stage.client(NUM_CLIENTS) as client, asyncio.TaskGroup() as group:
        for original in originals:
            for path, stream in kinds:
                key = f"{original.key} {path} {stream}"
                question = replace(original, key=key, path=path, stream=stream)
                books.questions[question.digest] = question
                group.create_task(run(client, question))
    return {"random_requests": num_requests, "ways_to_ask_each": len(kinds)}


CHECKS = {"kills": check_kills, "outage": check_outage, "balance": check_balance, "dialects": check_dialects}


async def measure(stage: Stage, name: str, num_kills: int) -> dict[str, Any]:
    """One check, and the whole ledger after it."""
    start_s = time.monotonic()
    more = (num_kills,) if name == "kills" else ()
    figures = await CHECKS[name](stage, *more)
    seconds = time.monotonic() - start_s
    books = stage.books
    if not await stage.ledger.settled():
        books.faults.append("some operations are open after two minutes")
    stage.process.terminate()
    await asyncio.to_thread(stage.process.join)
    books.faults += stage.ledger.check_all(books)
    return {
        **figures,
        "seconds": round(seconds, 1),
        "charges_that_clients_know": len(books.known),
        "questions": len(books.questions),
        "replies_by_status": dict(sorted(books.statuses.items())),
        "faults": len(books.faults),
        "first_faults": books.faults[:5],
        "verdict": "FAIL" if books.faults or (name != "balance" and not books.known) else "PASS",
    }


@contextlib.contextmanager
def databases(kind: str, folder: Path) -> Iterator[tuple[str, Postgres | None]]:
    """The URL of an empty database, and its server."""
    if kind == "sqlite":
        yield f"sqlite:///{folder / 'service.db'}", None
        return
    programs = postgres_programs()
    if programs is None:
        raise SystemExit("PostgreSQL is not installed")
    with running_postgres(programs) as server, empty_database(server.url) as url:
        yield url, server


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("check", choices=CHECKS)
    parser.add_argument(
        "--database", choices=["sqlite", "postgresql"], help="default: sqlite; outage: the other"
    )
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    kind = "postgresql" if arguments.check == "outage" else arguments.database or "sqlite"
    os.environ["PYTHONPATH"] = os.pathsep.join(sys.path[:2])  # for the process that all others are copies of
    multiprocessing.set_forkserver_preload(["money", "money_service"])
    connections_within(4096)
    with tempfile.TemporaryDirectory() as name, databases(kind, Path(name)) as (url, server):
        funds = 10 * DEAREST.price if arguments.check == "balance" else FUNDS
        stage = Stage(set_up(url, Path(name), funds), Books(random.Random(arguments.seed)), server)
        result = asyncio.run(measure(stage, arguments.check, arguments.kills))
        stage.listener.close()
    result = {"check": arguments.check, "database": kind, **result}
    for name, value in result.items():
        print(f"{name:<30} {value}")
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")
    return 0 if result["verdict"] == "PASS" else 3


if __name__ == "__main__":
    sys.exit(main())
