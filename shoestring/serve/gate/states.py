"""The states of registration, and the rules that move between them (no clock, no I/O).

Up at once, to what the signals demand; down one state at a time, after the signals were calm for a while.
"""

from dataclasses import asdict, dataclass, replace
from enum import StrEnum

from shoestring.serve.gate.signals import Reading


class State(StrEnum):
    """Ways to open an account, from easy to impossible."""

    OPEN = "open"
    PROOF_OF_WORK = "proof_of_work"
    """The client computes for some seconds."""
    INVITE = "invite"
    """An invitation of the operator, and the work."""
    CLOSED = "closed"

    @property
    def rank(self) -> int:
        return STATES.index(self)


STATES = tuple(State)


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """Signals at which the gate goes up. Calm is half of each."""

    sign_ups_burst: float = 10.0
    """Tries to open an account within 5 s, and at least `times_baseline` of what is normal."""
    sign_ups_minute: float = 30.0
    times_baseline: float = 4.0
    failures_burst: float = 20.0
    """Wrong passwords within 5 s, when they are more than half of all sign-ins."""
    refusals_burst: float = 500.0
    """Refused requests within 5 s."""
    networks_burst: float = 100.0
    """Networks that refused requests came from within 5 s."""
    new_accounts_minute: float = 60.0
    """New accounts a minute, though each had to work for it: only with an invitation from then on."""
    paying_wait_s: float = 10.0
    """Seconds that paying requests wait: only with an invitation; four times as long: closed."""

    def times(self, factor: float) -> "Thresholds":
        """The same signals at a part of their levels."""
        values = {name: value * factor for name, value in asdict(self).items()}
        return Thresholds(**{**values, "times_baseline": max(self.times_baseline * factor, 1.0)})


@dataclass(frozen=True, slots=True)
class Demand:
    """The state that signals demand, and why, in words for everyone."""

    state: State
    reason: str


def demand(reading: Reading, limits: Thresholds) -> Demand:
    """The lowest state that answers the signals."""
    if reading.paying_wait_s >= 4 * limits.paying_wait_s:
        return Demand(State.CLOSED, "requests of users wait very long for an answer")
    if reading.paying_wait_s >= limits.paying_wait_s:
        return Demand(State.INVITE, "requests of users wait long for an answer")
    if reading.new_accounts_minute >= _above(limits.new_accounts_minute, reading.baseline_minute, limits):
        return Demand(State.INVITE, "accounts are opened much faster than usual")
    burst = _above(limits.sign_ups_burst, reading.baseline_minute / 12, limits)
    minute = _above(limits.sign_ups_minute, reading.baseline_minute, limits)
    if reading.sign_ups_burst >= burst or reading.sign_ups_minute >= minute:
        return Demand(State.PROOF_OF_WORK, "many more sign-ups than usual")
    if reading.failures_burst >= limits.failures_burst and reading.failure_share > 0.5:
        return Demand(State.PROOF_OF_WORK, "many sign-ins with wrong passwords")
    if reading.refusals_burst >= limits.refusals_burst:
        return Demand(State.PROOF_OF_WORK, "a flood of requests without a key")
    if reading.networks_burst >= limits.networks_burst:
        return Demand(State.PROOF_OF_WORK, "refused requests from very many networks")
    return Demand(State.OPEN, "calm")


def _above(least: float, normal: float, limits: Thresholds) -> float:
    return max(least, limits.times_baseline * normal)


@dataclass(frozen=True, slots=True, kw_only=True)
class GateState:
    """The state of registration and since when; times in seconds of one clock."""

    state: State = State.OPEN
    since_s: float = 0.0
    reason: str = "calm"
    calm_since_s: float | None = None
    """Since when the signals have demanded less than this state; None when they do not."""
    pin: State | None = None
    """The state that the operator holds, whatever the signals are."""

    @property
    def is_pinned(self) -> bool:
        return self.pin is not None


def next_state(
    now: GateState, reading: Reading, time_s: float, *, thresholds: Thresholds, relax_s: float
) -> GateState:
    """The state after a measurement."""
    if now.pin is not None:
        return now if now.state is now.pin else _move(now, now.pin, time_s, now.reason)
    wish = demand(reading, thresholds)
    if wish.state.rank > now.state.rank:
        return _move(now, wish.state, time_s, wish.reason)
    if demand(reading, thresholds.times(0.5)).state.rank >= now.state.rank:
        return replace(now, calm_since_s=None)
    calm_since_s = time_s if now.calm_since_s is None else now.calm_since_s
    if time_s - calm_since_s < relax_s:
        return replace(now, calm_since_s=calm_since_s)
    lower = STATES[now.state.rank - 1]
    reason = "calm" if lower is State.OPEN else f"calmer; before: {now.reason}"
    return replace(_move(now, lower, time_s, reason.partition("; before: calmer")[0]), calm_since_s=time_s)


def hold(now: GateState, pin: State | None, time_s: float, reason: str) -> GateState:
    """The state after the operator has pinned one, or let go of it (None)."""
    if pin is None:
        return replace(now, pin=None, calm_since_s=None, reason=reason)
    return replace(_move(now, pin, time_s, reason), pin=pin)


def _move(now: GateState, state: State, time_s: float, reason: str) -> GateState:
    since_s = now.since_s if state is now.state else time_s
    return replace(now, state=state, since_s=since_s, reason=reason, calm_since_s=None)
