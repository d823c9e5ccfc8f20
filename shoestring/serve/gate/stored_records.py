"""Records of the gate and of incidents in the database."""

from collections.abc import Sequence

from sqlalchemy import Connection, func, insert, select

from shoestring.serve.gate.records import Change, Note
from shoestring.serve.gate.states import State
from shoestring.serve.storage.database import Database
from shoestring.serve.storage.tables import gate_changes, incident_notes

MAX_REASON = 200


class StoredRecords:
    """Records as rows that are only ever added. Every method raises DatabaseGone."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add_change(self, change: Change) -> None:
        row = {
            "time_s": int(change.time_s),
            "old": change.old.value,
            "new": change.new.value,
            "reason": change.reason[:MAX_REASON],
            "actor": change.actor,
            "is_pinned": int(change.is_pinned),
        }
        await self._database.write(lambda connection: connection.execute(insert(gate_changes), [row]))

    async def changes(self, limit: int) -> Sequence[Change]:
        query = select(gate_changes).order_by(gate_changes.c.id.desc()).limit(limit)
        rows = await self._database.read(lambda connection: connection.execute(query).all())
        return [
            Change(
                time_s=row.time_s,
                old=State(row.old),
                new=State(row.new),
                reason=row.reason,
                actor=row.actor,
                is_pinned=bool(row.is_pinned),
            )
            for row in rows
        ]

    async def begin_incident(self, time_s: float, text: str, actor: str) -> int:
        def begin(connection: Connection) -> int:
            last: int | None = connection.execute(select(func.max(incident_notes.c.incident))).scalar()
            number = (last or 0) + 1
            note = Note(incident=number, time_s=time_s, kind="begin", text=text, actor=actor)
            connection.execute(insert(incident_notes), [_row(note)])
            return number

        return await self._database.write(begin)

    async def add_note(self, note: Note) -> None:
        await self._database.write(
            lambda connection: connection.execute(insert(incident_notes), [_row(note)])
        )

    async def notes(self, limit: int) -> Sequence[Note]:
        query = select(incident_notes).order_by(incident_notes.c.id.desc()).limit(limit)
        rows = await self._database.read(lambda connection: connection.execute(query).all())
        return [
            Note(incident=row.incident, time_s=row.time_s, kind=row.kind, text=row.text, actor=row.actor)
            for row in rows
        ]


def _row(note: Note) -> dict[str, object]:
    return {
        "incident": note.incident,
        "time_s": int(note.time_s),
        "kind": note.kind,
        "text": note.text,
        "actor": note.actor,
    }
