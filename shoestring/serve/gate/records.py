"""Records that are only ever added to: changes of the gate, and notes on incidents."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from shoestring.serve.gate.states import State

NoteKind = Literal["begin", "update", "end"]


@dataclass(frozen=True, kw_only=True)
class Change:
    """A change of the registration's state."""

    time_s: float
    """Seconds since 1970."""
    old: State
    new: State
    reason: str
    actor: str
    """`gate`, or the operator who did it."""
    is_pinned: bool = False


@dataclass(frozen=True, kw_only=True)
class Note:
    """A sentence about an incident."""

    incident: int
    time_s: float
    kind: NoteKind
    text: str
    actor: str


@dataclass(kw_only=True)
class Incident:
    """An incident: the notes on it, in order."""

    number: int
    notes: list[Note] = field(default_factory=list)

    @property
    def begin_s(self) -> float:
        return self.notes[0].time_s

    @property
    def end_s(self) -> float | None:
        """None while it lasts."""
        return self.notes[-1].time_s if self.notes[-1].kind == "end" else None


class Records(Protocol):
    """The place of the records."""

    async def add_change(self, change: Change) -> None: ...

    async def changes(self, limit: int) -> Sequence[Change]:
        """The last changes, the newest first."""
        ...

    async def begin_incident(self, time_s: float, text: str, actor: str) -> int:
        """Begin an incident; returns its number."""
        ...

    async def add_note(self, note: Note) -> None: ...

    async def notes(self, limit: int) -> Sequence[Note]:
        """The last notes, the newest first."""
        ...


class MemoryRecords:
    """Records of one process, for a service without a database."""

    def __init__(self) -> None:
        self._changes: list[Change] = []
        self._notes: list[Note] = []

    async def add_change(self, change: Change) -> None:
        self._changes.append(change)

    async def changes(self, limit: int) -> Sequence[Change]:
        return self._changes[: -limit - 1 : -1]

    async def begin_incident(self, time_s: float, text: str, actor: str) -> int:
        number = 1 + max((note.incident for note in self._notes), default=0)
        self._notes.append(Note(incident=number, time_s=time_s, kind="begin", text=text, actor=actor))
        return number

    async def add_note(self, note: Note) -> None:
        self._notes.append(note)

    async def notes(self, limit: int) -> Sequence[Note]:
        return self._notes[: -limit - 1 : -1]


def incidents(notes: Sequence[Note]) -> list[Incident]:
    """The incidents of notes, the newest first in both; the oldest may lack its beginning."""
    result: dict[int, Incident] = {}
    for note in reversed(notes):
        result.setdefault(note.incident, Incident(number=note.incident)).notes.append(note)
    return sorted(result.values(), key=lambda incident: incident.begin_s, reverse=True)
