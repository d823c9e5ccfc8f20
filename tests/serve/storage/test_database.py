"""Writes are committed in groups, each on its own; a database that is gone is a 503."""

import asyncio
import threading

import pytest
from sqlalchemy import insert, select

from shoestring.serve.storage.database import Database, DatabaseGone
from shoestring.serve.storage.tables import balances


def add(account_id, granted=0):
    row = {"account_id": account_id, "granted": granted, "topped_up": 0, "held": 0}
    return lambda connection: connection.execute(insert(balances).values(**row)) and None


def names(connection):
    return {row.account_id for row in connection.execute(select(balances))}


def run(database_url, test):
    async def main():
        database = Database(database_url)
        try:
            return await test(database)
        finally:
            await database.close()

    return asyncio.run(main())


def test_what_is_written_can_be_read(database_url):
    async def test(database):
        await database.write(add("a"))
        assert await database.write(names) == {"a"}
        return await database.read(names)

    assert run(database_url, test) == {"a"}
    assert run(database_url, lambda database: database.read(names)) == {"a"}


def test_work_that_fails_undoes_itself_alone(database_url):
    def half(connection):
        add("half")(connection)
        raise ValueError("no")

    async def test(database):
        results = await asyncio.gather(
            database.write(add("a")), database.write(half), database.write(add("b")), return_exceptions=True
        )
        assert isinstance(results[1], ValueError)
        return await database.read(names)

    assert run(database_url, test) == {"a", "b"}


def test_a_statement_that_fails_does_not_take_its_batch_with_it(database_url):
    async def test(database):
        gate = threading.Event()
        first = asyncio.ensure_future(database.write(lambda connection: gate.wait(10)))
        bad = add("bad", granted=-1)  # against a constraint of the table
        rest = [asyncio.ensure_future(database.write(work)) for work in (add("a"), bad, add("b"))]
        await asyncio.sleep(0.05)  # all three wait for the first, so they are one batch
        gate.set()
        results = await asyncio.gather(first, *rest, return_exceptions=True)
        assert [type(result) for result in results[1:]] == [type(None), DatabaseGone, type(None)]
        return await database.read(names)

    assert run(database_url, test) == {"a", "b"}


def test_many_writers_share_commits(database_url):
    async def test(database):
        gate, commits = threading.Event(), []
        first = asyncio.ensure_future(database.write(lambda connection: gate.wait(10)))
        work = [asyncio.ensure_future(database.write(add(f"a{i}"))) for i in range(100)]
        from sqlalchemy import event

        event.listen(database._writer, "commit", lambda connection: commits.append(1))
        await asyncio.sleep(0.05)
        gate.set()
        await asyncio.gather(first, *work)
        assert len(commits) < 10
        return len(await database.read(names))

    assert run(database_url, test) == 100


def test_work_of_a_caller_that_left_is_committed(database_url):
    async def test(database):
        gate = threading.Event()
        first = asyncio.ensure_future(database.write(lambda connection: gate.wait(10)))
        task = asyncio.ensure_future(database.write(add("a")))
        await asyncio.sleep(0)
        task.cancel()
        gate.set()
        await first
        return await database.write(names)

    assert run(database_url, test) == {"a"}


def test_readers_cannot_write(database_url):

    async def test(database):
        with pytest.raises(DatabaseGone):
            await database.read(add("a"))

    run(database_url, test)


def test_a_database_that_is_gone_says_when_to_come_back():
    async def test(database):
        for work in (database.write, database.read):
            with pytest.raises(DatabaseGone) as caught:
                await work(names)
            assert (caught.value.status, caught.value.retry_after_s) == (503, 5)

    run("postgresql://postgres@127.0.0.1:9/nothing", test)
