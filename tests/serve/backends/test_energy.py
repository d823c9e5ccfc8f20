"""Shares of the machine's energy: they add up, and nobody pays for a time without answers."""

import pytest

from shoestring.serve.backends.energy import EnergyShares
from shoestring.train.report.energy import Energy


class Counter:
    """A meter whose joules the test sets."""

    def __init__(self, joules=0.0):
        self.joules = joules

    def read_now(self):
        how = "unavailable" if self.joules is None else "measured"
        return Energy(joules=self.joules, how=how, detail="")


def test_answers_at_the_same_time_share_equally():
    meter = Counter()
    shares = EnergyShares(meter)
    meter.joules = 100.0  # before the first answer
    with shares.answer() as first:
        meter.joules = 110.0
        with shares.answer() as second:
            meter.joules = 130.0
            assert (first(), second()) == (20.0, 10.0)
        meter.joules = 137.0
        assert first() == 27.0
    meter.joules = 500.0  # between answers
    with shares.answer() as third:
        meter.joules = 501.0
        assert third() == 1.0


def test_an_answer_that_fails_gives_its_share_back_to_the_others():
    meter = Counter()
    shares = EnergyShares(meter)
    with shares.answer() as first:
        with pytest.raises(RuntimeError), shares.answer():
            raise RuntimeError
        meter.joules = 8.0
        assert first() == 8.0


def test_without_a_counter_nothing_is_said():
    with EnergyShares(Counter(joules=None)).answer() as joules:
        assert joules() is None
