"""The gate of registration: measures every second, changes its state, and writes down every change.

Users who exist never pass it.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from shoestring.serve.admission.admission import Admission
from shoestring.serve.backends.errors import RequestError
from shoestring.serve.gate.proof_of_work import ProofOfWork
from shoestring.serve.gate.records import Change, Incident, Note, NoteKind, Records, incidents
from shoestring.serve.gate.signals import Signals
from shoestring.serve.gate.states import GateState, State, Thresholds, hold, next_state

log = logging.getLogger(__name__)

MEASURE_S = 1.0
CACHE_S = 3.0
MAX_NOTES = 500
ACTOR = "gate"
SENTENCES = {
    State.OPEN: "Registration is open.",
    State.PROOF_OF_WORK: "Registration needs some seconds of computation by your browser or program.",
    State.INVITE: "Registration needs an invitation.",
    State.CLOSED: "Registration is closed for now. Users can sign in as usual.",
}


@dataclass(frozen=True, kw_only=True)
class GateSettings:
    """The rules of the gate."""

    thresholds: Thresholds = field(default_factory=Thresholds)
    relax_s: float = 300.0
    """Seconds of calm before the gate goes down by one state."""
    start: State = State.OPEN
    """The state of a new service: an operator may want invitations only."""


class Gate:
    """The state of registration. Use it on one event loop."""

    def __init__(
        self,
        records: Records,
        settings: GateSettings | None = None,
        *,
        admission: Admission | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`admission` tells how long paying requests wait, and how many connections were refused."""
        self.signals = Signals(clock)
        self.records = records
        self._settings = settings or GateSettings()
        self._admission, self._clock = admission, clock
        self._num_refusals = 0
        self._watching: asyncio.Task[None] | None = None
        self._proofs = ProofOfWork(clock)
        self._now = GateState(since_s=clock(), state=self._settings.start, pin=self._pin(), reason="calm")
        self._incident: int | None = None
        """The incident that the gate itself has begun."""
        self._incidents: list[Incident] = []
        self._incidents_s = 0.0
        self._unwritten: deque[Callable[[], Awaitable[None]]] = deque()

    @property
    def now(self) -> GateState:
        return self._now

    @property
    def difficulty(self) -> int:
        """Work of a sign-up, in units of the easiest: twice as much in each further state."""
        return 1 << max(self._now.state.rank - 1, 0)

    def challenge(self) -> dict[str, Any]:
        """A challenge of ALTCHA for one sign-up."""
        return self._proofs.challenge(self.difficulty)

    def check(
        self, network: str, *, proof: str | None = None, is_invited: bool = False, is_vouched: bool = False
    ) -> None:
        """Let a sign-up pass or raise RequestError. Counts the try.

        `proof` is a solution of `challenge`; none is needed when another service vouches for the person.
        """
        self.signals.sign_up(network)
        state = self._now.state
        if state is State.OPEN or (state is State.PROOF_OF_WORK and is_vouched):
            return
        if state is State.CLOSED:
            raise RequestError("overloaded", SENTENCES[state], retry_after_s=self._settings.relax_s)
        if state is State.INVITE and not is_invited:
            raise RequestError("permission", SENTENCES[state])
        if proof is None:
            sentence = "solve the challenge of GET /auth/challenge and send the solution as `proof`"
            raise RequestError("permission", f"{SENTENCES[State.PROOF_OF_WORK]} For programs: {sentence}.")
        self._proofs.check(proof, self.difficulty)

    async def start(self) -> None:
        """Take up the last state and begin to measure."""
        await self.restore()
        self._watching = asyncio.create_task(self._watch())

    async def stop(self) -> None:
        """End measuring."""
        if self._watching is not None:
            self._watching.cancel()
            with suppress(asyncio.CancelledError):
                await self._watching

    async def restore(self) -> None:
        """Take up the state in which an earlier process has left the registration."""
        changes = await self.records.changes(1)
        if changes:
            last = changes[0]
            pin = last.new if last.is_pinned else None
            self._now = GateState(state=last.new, since_s=last.time_s, reason=last.reason, pin=pin)
        notes = await self.records.notes(100)
        last_own = next((note for note in notes if note.actor == ACTOR), None)
        if last_own is not None and last_own.kind != "end":
            self._incident = last_own.incident

    async def _watch(self) -> None:
        """Measure every second until cancelled."""
        while True:
            try:
                await self.measure()
            except Exception as error:  # the database may be away; the state in memory counts meanwhile
                log.error("the gate cannot write down its state: %s", type(error).__name__)
            await asyncio.sleep(MEASURE_S)

    async def measure(self) -> None:
        """Measure once and change the state if that is due."""
        reading = self.signals.read(self._load())
        rules = self._settings
        new = next_state(
            self._now, reading, self._clock(), thresholds=rules.thresholds, relax_s=rules.relax_s
        )
        if new.state is State.OPEN and new.calm_since_s is None:
            self.signals.learn(2 * max(reading.baseline_minute, rules.thresholds.sign_ups_minute / 4))
        else:
            self.signals.forget()
        await self._change(new, ACTOR)

    def _load(self) -> float:
        """Seconds that paying requests wait; connections that were refused are counted on the way."""
        if self._admission is None:
            return 0.0
        num_refusals = self._admission.connections.num_refusals
        self.signals.refusals(num_refusals - self._num_refusals)
        self._num_refusals = num_refusals
        return self._admission.paying_wait_s()

    async def incidents(self) -> list[Incident]:
        """The last incidents, the newest first; read anew every few seconds at most. Raises DatabaseGone."""
        if self._clock() - self._incidents_s >= CACHE_S:
            self._incidents = incidents(await self.records.notes(MAX_NOTES))
            self._incidents_s = self._clock()
        return self._incidents

    def now_s(self) -> float:
        """The time by the gate's clock."""
        return self._clock()

    async def pin(self, state: State | None, reason: str, actor: str) -> None:
        """Hold a state whatever the signals are; None lets go."""
        await self._change(hold(self._now, state, self._clock(), reason), actor)

    async def _change(self, new: GateState, actor: str) -> None:
        old, self._now = self._now, new
        if (new.state, new.pin) == (old.state, old.pin):
            await self._write()
            return
        log.warning("registration: %s -> %s (%s)", old.state, new.state, new.reason)
        change = Change(
            time_s=self._clock(),
            old=old.state,
            new=new.state,
            reason=new.reason,
            actor=actor,
            is_pinned=new.is_pinned,
        )
        self._unwritten.append(partial(self.records.add_change, change))
        if new.state is not old.state:
            self._unwritten.append(partial(self._note, change))
        await self._write()

    async def _write(self) -> None:
        """Write down what is not yet: while the database is away, it waits here."""
        while self._unwritten:
            await self._unwritten[0]()
            self._unwritten.popleft()

    async def _note(self, change: Change) -> None:
        """Tell everyone: an incident lasts from the gate's own first step up until registration is open."""
        text, time_s = SENTENCES[change.new], change.time_s
        if change.new is not State.OPEN:
            text += f" The reason: {change.reason}."
        if self._incident is None:
            if change.actor == ACTOR and change.new is not State.OPEN:
                self._incident = await self.records.begin_incident(time_s, text, ACTOR)
            return
        kind: NoteKind = "end" if change.new is State.OPEN else "update"
        note = Note(incident=self._incident, time_s=time_s, kind=kind, text=text, actor=ACTOR)
        await self.records.add_note(note)
        if kind == "end":
            self._incident = None

    def _pin(self) -> State | None:
        start = self._settings.start
        return None if start is State.OPEN else start
