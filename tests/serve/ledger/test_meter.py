"""Every dialect is charged by the same ledger: equal streamed and not, once, and never more than was held."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from sqlalchemy import select

from shoestring.serve.backends.reply import Usage, Work
from shoestring.serve.caller import Caller
from shoestring.serve.ledger.audit import audit
from shoestring.serve.ledger.meter import Meter
from shoestring.serve.ledger.operations import add_funds, balance
from shoestring.serve.ledger.prices import NANOS
from shoestring.serve.storage.database import Database, DatabaseGone
from shoestring.serve.storage.tables import operations
from tests.serve.words import CHAT, MOST, PRICE, PRICES, PROMPT

BODIES = {
    "/v1/chat/completions": CHAT,
    "/chat/completions": CHAT,
    "/v1/completions": {"model": "words", "prompt": "x", "max_tokens": MOST},
    "/v1/responses": {"model": "words", "input": "x", "max_output_tokens": MOST},
    "/v1/messages": CHAT,
    "/anthropic/v1/messages": CHAT,
    "/api/chat": CHAT,
    "/api/generate": {"model": "words", "prompt": "x"},
}


@pytest.mark.parametrize("path", BODIES)
def test_a_reply_costs_the_same_streamed_and_not(paid, path):
    client, _, look = paid
    whole = client.post(path, json={**BODIES[path], "stream": False})
    assert whole.status_code == 200, whole.text
    assert whole.headers["x-request-cost"] == f"{PRICE / NANOS:.6f} USD"
    with client.stream("POST", path, json={**BODIES[path], "stream": True}) as stream:
        assert stream.headers["x-request-cost-at-most"] == "0.00005 USD"
        stream.read()
    rows = look(
        lambda connection: connection.execute(select(operations).where(operations.c.kind == "usage")).all()
    )
    assert [row.charge for row in rows] == [PRICE, PRICE]
    assert look(audit) == []


def test_a_client_that_leaves_pays_for_what_was_made(paid):
    client, backend, look = paid
    backend.gate.clear()
    with client.stream("POST", "/v1/chat/completions", json={**CHAT, "stream": True}) as stream:
        next(stream.iter_lines())
    backend.gate.set()
    present = look(lambda connection: balance(connection, "local"))
    while present.held:
        present = look(lambda connection: balance(connection, "local"))
    assert 10 * NANOS - PRICE <= present.total < 10 * NANOS
    assert backend.num_open == 0


def test_a_balance_for_ten_serves_ten_of_many_at_once(paid):
    client, backend, look = paid
    most = -(-(PROMPT + 2 * MOST) * NANOS // 10**6)

    def leave_ten(connection):
        add_funds(connection, "less", "local", "top_up", 10 * most - 10 * NANOS, 0)

    client.portal.call(client.app.state.service.meter._database.write, leave_ten)
    backend.gate.clear()  # so that all are held at once
    with ThreadPoolExecutor(40) as pool:
        asked = [pool.submit(client.post, "/v1/chat/completions", json=CHAT) for _ in range(40)]
        while backend.num_open < 10 or sum(task.done() for task in asked) < 30:
            pass
        backend.gate.set()
        codes = sorted(task.result().status_code for task in asked)
    assert codes == [200] * 10 + [402] * 30
    assert look(audit) == []


def test_money_held_by_a_commit_whose_answer_was_lost_is_given_back(database_url):

    async def main():
        database = Database(database_url)
        meter = Meter(database, PRICES)
        await database.write(lambda connection: add_funds(connection, "f", "a", "grant", NANOS, 0))
        original, losses = database.write, [True]

        async def write(work):
            result = await original(work)
            if losses:
                losses.pop()
                raise DatabaseGone
            return result

        database.write = write
        work = Work(model="words", prompt_tokens=PROMPT, max_tokens=MOST, start=None)
        with pytest.raises(DatabaseGone):
            await meter.hold(Caller(account_id="a", idempotency_key="k"), work)
        await asyncio.sleep(0)
        assert (await original(lambda connection: balance(connection, "a"))).available == NANOS
        await (await meter.hold(Caller(account_id="a", idempotency_key="k"), work)).settle()
        assert await original(audit) == []
        await database.close()

    asyncio.run(main())


def test_what_a_dead_process_held_is_free_at_once_on_sqlite(database_url):

    async def main():
        database = Database(database_url)
        await database.write(lambda connection: add_funds(connection, "f", "a", "grant", NANOS, 0))
        dead, alive = Meter(database, PRICES), Meter(database, PRICES)
        await dead.start()
        work = Work(model="words", prompt_tokens=PROMPT, max_tokens=MOST, start=None)
        caller = Caller(account_id="a", idempotency_key="k")
        await dead.hold(caller, work)
        dead._presence.cancel()  # as by SIGKILL
        await alive.start()
        held = (await database.read(lambda connection: balance(connection, "a"))).held
        if database_url.startswith("sqlite"):
            await alive.hold(replace(caller, request_id="again"), work)
        await alive.stop()
        await database.close()
        return held

    assert (asyncio.run(main()) == 0) == database_url.startswith("sqlite")


def test_what_waits_for_a_lost_database_is_charged_when_it_is_back(database_url):

    async def main():
        database = Database(database_url)
        meter = Meter(database, PRICES)
        await meter.start()
        await database.write(lambda connection: add_funds(connection, "f", "a", "grant", NANOS, 0))
        work = Work(model="words", prompt_tokens=PROMPT, max_tokens=MOST, start=None)
        charge = await meter.hold(Caller(account_id="a"), work)
        failures = iter([True])
        original = database.write

        async def write(work):
            if next(failures, False):
                raise DatabaseGone
            return await original(work)

        database.write = write
        await charge.count(Usage(prompt_tokens=PROMPT, completion_tokens=3))
        amount = await charge.settle()
        assert amount == -(-(PROMPT + 6) * NANOS // 10**6)
        assert await original(audit) == []
        await meter.stop()
        await database.close()

    asyncio.run(main())
