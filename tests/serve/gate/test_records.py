"""Records in memory and in the database are the same."""

import asyncio

import pytest

from shoestring.serve.gate.gate import Gate
from shoestring.serve.gate.records import Change, MemoryRecords, Note, incidents
from shoestring.serve.gate.states import State
from shoestring.serve.gate.stored_records import StoredRecords
from shoestring.serve.storage.database import Database


@pytest.fixture
def run(database_url):
    """Runs a test with records in memory, then in a database."""

    async def in_database(test):
        database = Database(database_url)
        try:
            await test(StoredRecords(database))
        finally:
            await database.close()

    def run(test):
        asyncio.run(test(MemoryRecords()))
        asyncio.run(in_database(test))

    return run


CHANGES = [
    Change(time_s=1, old=State.OPEN, new=State.PROOF_OF_WORK, reason="many sign-ups", actor="gate"),
    Change(time_s=2, old=State.PROOF_OF_WORK, new=State.CLOSED, reason="a talk", actor="ann", is_pinned=True),
]


def test_changes_come_newest_first(run):
    async def test(records):
        assert list(await records.changes(5)) == []
        for change in CHANGES:
            await records.add_change(change)
        assert list(await records.changes(5)) == CHANGES[::-1]
        assert list(await records.changes(1)) == CHANGES[1:]

    run(test)


def test_incidents_are_the_fold_of_their_notes(run):
    async def test(records):
        first = await records.begin_incident(1, "a disk is full", "ann")
        second = await records.begin_incident(2, "the network is slow", "ann")
        assert first != second
        await records.add_note(Note(incident=first, time_s=3, kind="end", text="a new disk", actor="ann"))
        late, early = incidents(await records.notes(10))
        assert (late.number, late.begin_s, late.end_s) == (second, 2, None)
        assert (early.number, early.end_s, len(early.notes)) == (first, 3, 2)

    run(test)


def test_a_gate_goes_on_where_the_last_one_was(run):
    async def test(records):
        gate = Gate(records)
        await gate.pin(State.CLOSED, "x" * 300, "ann")
        second = Gate(records)
        await second.restore()
        assert second.now.pin is State.CLOSED

    run(test)
