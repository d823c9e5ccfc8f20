"""The gate: it reacts within seconds, writes down every change, and goes on where it was after a restart."""

import asyncio

import altcha
import pytest

from shoestring.serve.backends.errors import RequestError
from shoestring.serve.gate import proof_of_work
from shoestring.serve.gate.gate import Gate, GateSettings
from shoestring.serve.gate.records import Change, MemoryRecords, incidents
from shoestring.serve.gate.states import State


class Clock:
    now_s = 1_000_000.0

    def __call__(self) -> float:
        return self.now_s


async def seconds(gate: Gate, clock: Clock, number: int, sign_ups: int = 0) -> None:
    for _ in range(number):
        clock.now_s += 1
        for _ in range(sign_ups):
            gate.signals.sign_up("192.0.2")
        await gate.measure()


def test_a_flood_of_sign_ups_is_answered_within_five_seconds_and_forgotten_after_calm():
    async def main():
        clock, records = Clock(), MemoryRecords()
        gate = Gate(records, GateSettings(relax_s=60), clock=clock)
        await seconds(gate, clock, 5, sign_ups=3)
        assert gate.now.state is State.PROOF_OF_WORK
        begin_s = gate.now.since_s
        await seconds(gate, clock, 30, sign_ups=3)
        await seconds(gate, clock, 59)
        assert gate.now.state is State.PROOF_OF_WORK
        await seconds(gate, clock, 70)
        assert gate.now.state is State.OPEN
        changes = await records.changes(10)
        assert [(change.old, change.new) for change in changes] == [
            (State.PROOF_OF_WORK, State.OPEN),
            (State.OPEN, State.PROOF_OF_WORK),
        ]
        (incident,) = incidents(await records.notes(10))
        assert [note.kind for note in incident.notes] == ["begin", "end"]
        assert (incident.begin_s, incident.end_s) == (begin_s, gate.now.since_s)
        assert "many more sign-ups than usual" in incident.notes[0].text

    asyncio.run(main())


def test_what_each_state_asks_of_a_sign_up(monkeypatch):
    monkeypatch.setattr(proof_of_work, "KEY_PREFIX", "0")

    async def main():
        gate = Gate(MemoryRecords(), clock=Clock())

        def status(**fields) -> int:
            try:
                gate.check("192.0.2", **{"proof": None, "is_invited": False, **fields})
            except RequestError as error:
                return error.status
            return 200

        def proof() -> str:
            challenge = altcha.Challenge.from_dict(gate.challenge())
            return altcha.Payload(challenge, altcha.solve_challenge(challenge)).to_base64()

        monkeypatch.setattr("altcha.v2.time.time", Clock())
        assert status() == 200
        await gate.pin(State.PROOF_OF_WORK, "test", "operator")
        assert (status(), status(proof="x"), status(proof=proof())) == (403, 400, 200)
        easy = proof()
        await gate.pin(State.INVITE, "test", "operator")
        assert (status(proof=proof()), status(is_invited=True)) == (403, 403)
        assert status(proof=easy, is_invited=True) == 400
        assert status(proof=proof(), is_invited=True) == 200
        await gate.pin(State.CLOSED, "test", "operator")
        assert status(proof=proof(), is_invited=True) == 503

    asyncio.run(main())


def test_a_new_process_takes_up_the_state_the_pin_and_the_incident():
    async def main():
        clock, records = Clock(), MemoryRecords()
        gate = Gate(records, GateSettings(relax_s=60), clock=clock)
        await seconds(gate, clock, 5, sign_ups=3)
        second = Gate(records, GateSettings(relax_s=60), clock=clock)
        await second.restore()
        assert second.now.state is State.PROOF_OF_WORK
        assert second.now.since_s == gate.now.since_s
        await second.pin(State.INVITE, "a talk", "ann")
        third = Gate(records, GateSettings(relax_s=60), clock=clock)
        await third.restore()
        await seconds(third, clock, 200)
        assert (third.now.state, third.now.pin) == (State.INVITE, State.INVITE)
        await third.pin(None, "over", "ann")
        await seconds(third, clock, 200)
        assert third.now.state is State.OPEN
        (incident,) = incidents(await records.notes(10))
        assert [note.kind for note in incident.notes] == ["begin", "update", "update", "end"]

    asyncio.run(main())


def test_an_operator_who_wants_invitations_has_no_incident():
    async def main():
        clock, records = Clock(), MemoryRecords()
        gate = Gate(records, GateSettings(start=State.INVITE), clock=clock)
        await gate.restore()
        await seconds(gate, clock, 5, sign_ups=10)
        assert gate.now.state is State.INVITE
        assert not await records.notes(10)
        await gate.pin(State.CLOSED, "moving house", "ann")
        assert not await records.notes(10)
        assert [change.actor for change in await records.changes(10)] == ["ann"]

    asyncio.run(main())


class LostRecords(MemoryRecords):
    """Records whose database is away for a while."""

    is_away = True

    async def add_change(self, change: Change) -> None:
        if self.is_away:
            raise ConnectionError
        await super().add_change(change)


def test_changes_are_written_down_when_the_database_is_back():
    async def main():
        clock, records = Clock(), LostRecords()
        gate = Gate(records, clock=clock)
        with pytest.raises(ConnectionError):
            await seconds(gate, clock, 5, sign_ups=3)
        assert gate.now.state is State.PROOF_OF_WORK
        with pytest.raises(ConnectionError):
            await seconds(gate, clock, 1)
        records.is_away = False
        await seconds(gate, clock, 1)
        assert len(await records.changes(10)) == 1
        assert len(await records.notes(10)) == 1

    asyncio.run(main())
