"""The states of registration: up at once, down slowly, and where the operator holds them."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoestring.serve.gate.signals import Reading
from shoestring.serve.gate.states import STATES, GateState, State, Thresholds, demand, hold, next_state

CALM = Reading()
LIMITS = Thresholds()


def after(now: GateState, reading: Reading, time_s: float, relax_s: float = 300.0) -> GateState:
    return next_state(now, reading, time_s, thresholds=LIMITS, relax_s=relax_s)


@pytest.mark.parametrize(
    ("reading", "state"),
    [
        (CALM, State.OPEN),
        (Reading(sign_ups_burst=9), State.OPEN),
        (Reading(sign_ups_burst=10), State.PROOF_OF_WORK),
        (Reading(sign_ups_burst=10, baseline_minute=60), State.OPEN),
        (Reading(sign_ups_burst=20, baseline_minute=60), State.PROOF_OF_WORK),
        (Reading(sign_ups_minute=30), State.PROOF_OF_WORK),
        (Reading(sign_ups_minute=30, baseline_minute=10), State.OPEN),
        (Reading(sign_ins_burst=100, failures_burst=40), State.OPEN),
        (Reading(sign_ins_burst=50, failures_burst=40), State.PROOF_OF_WORK),
        (Reading(refusals_burst=500), State.PROOF_OF_WORK),
        (Reading(networks_burst=100), State.PROOF_OF_WORK),
        (Reading(new_accounts_minute=60), State.INVITE),
        (Reading(paying_wait_s=10), State.INVITE),
        (Reading(paying_wait_s=40, sign_ups_burst=10), State.CLOSED),
    ],
)
def test_signals_demand_a_state(reading, state):
    assert demand(reading, LIMITS).state is state


readings = st.sampled_from(
    [
        CALM,
        Reading(sign_ups_burst=6),
        Reading(sign_ups_burst=10),
        Reading(paying_wait_s=6),
        Reading(paying_wait_s=15),
        Reading(paying_wait_s=60),
    ]
)
waits = st.integers(1, 400)


@given(st.lists(st.tuples(waits, readings), max_size=80))
def test_up_at_once_and_down_one_state_after_calm(steps):
    now, time_s, calm_s = GateState(), 0.0, None
    for wait_s, reading in steps:
        time_s += wait_s
        old, now = now, after(now, reading, time_s)
        wish = demand(reading, LIMITS).state
        assert now.state.rank >= wish.rank
        is_calm = demand(reading, LIMITS.times(0.5)).state.rank < old.state.rank
        if now.state.rank > old.state.rank:
            assert now.state is wish
        if now.state.rank < old.state.rank:
            assert old.state.rank - now.state.rank == 1
            assert calm_s is not None
            assert time_s - calm_s >= 300
        if now.state is old.state:
            assert now.since_s == old.since_s
            calm_s = (time_s if calm_s is None else calm_s) if is_calm else None
        else:
            assert now.since_s == time_s
            calm_s = time_s if now.state.rank < old.state.rank else None


@given(st.lists(st.tuples(waits, readings), max_size=30), st.sampled_from(STATES))
def test_a_pin_holds_and_ends(steps, pin):
    now = hold(GateState(), pin, 0.0, "maintenance")
    time_s = 0.0
    for wait_s, reading in steps:
        time_s += wait_s
        now = after(now, reading, time_s)
        assert now.state is pin
    now = hold(now, None, time_s, "done")
    assert now.state is pin
    for _ in range(10):
        time_s += 301
        now = after(now, CALM, time_s)
    assert now.state is State.OPEN


def test_it_waits_in_the_middle_between_calm_and_alarm():
    now = after(GateState(), Reading(sign_ups_burst=12), 1.0)
    now = after(now, CALM, 2.0)
    assert now.calm_since_s == 2.0
    now = after(now, Reading(sign_ups_burst=6), 290.0)
    assert now == replace(now, state=State.PROOF_OF_WORK, calm_since_s=None)
    now = after(now, CALM, 300.0)
    assert after(now, CALM, 599.0).state is State.PROOF_OF_WORK
    assert after(now, CALM, 600.0).state is State.OPEN
