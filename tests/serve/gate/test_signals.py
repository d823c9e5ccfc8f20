"""Signals: what is counted, and what becomes normal."""

import pytest

from shoestring.serve.gate.signals import MAX_NETWORKS, Signals


class Clock:
    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def test_a_reading_has_the_events_of_its_spans():
    clock = Clock()
    signals = Signals(clock)
    signals.sign_up("a")
    signals.new_account()
    clock.now_s += 30
    for network in ("a", "b", "b"):
        signals.sign_up(network)
    signals.sign_in("c", is_right=False)
    signals.sign_in("d", is_right=True)
    signals.refusal("e")
    signals.refusals(5)
    reading = signals.read(2.5)
    assert (reading.sign_ups_burst, reading.sign_ups_minute, reading.new_accounts_minute) == (3, 4, 1)
    assert (reading.sign_ins_burst, reading.failures_burst, reading.failure_share) == (2, 1, 0.5)
    assert (reading.refusals_burst, reading.networks_burst, reading.paying_wait_s) == (6, 4, 2.5)
    clock.now_s += 5
    later = signals.read(0)
    assert (later.sign_ups_burst, later.failures_burst, later.networks_burst) == (0, 0, 0)
    assert later.sign_ups_minute == 4


def test_networks_of_a_flood_need_bounded_memory():
    signals = Signals(Clock())
    for number in range(3 * MAX_NETWORKS):
        signals.refusal(str(number))
    assert signals.read(0).networks_burst == MAX_NETWORKS


def test_what_is_normal_is_learnt_within_hours_and_not_from_what_is_far_above():
    clock = Clock()
    signals = Signals(clock)

    def hour(per_minute: int, most: float) -> float:
        for _ in range(60):
            for _ in range(per_minute):
                signals.sign_up("a")
            signals.learn(most)
            clock.now_s += 60
        return signals.read(0).baseline_minute

    assert hour(6, 100) == pytest.approx(6 * 0.63, rel=0.05)
    assert hour(6, 100) == pytest.approx(6 * 0.86, rel=0.05)
    assert hour(1000, 10) < 10
    signals.forget()
    before = signals.read(0).baseline_minute
    clock.now_s += 1
    signals.learn(0)
    assert signals.read(0).baseline_minute == pytest.approx(before, rel=0.001)
