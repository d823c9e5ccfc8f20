"""Token buckets: never more than the rate allows, and in bounded memory."""

from hypothesis import given
from hypothesis import strategies as st

from shoestring.serve.admission.buckets import Buckets, Rate


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


steps = st.lists(st.tuples(st.floats(0, 20), st.floats(0.5, 8)), min_size=1, max_size=60)


@given(steps=steps, amount=st.integers(8, 40), period_s=st.floats(1, 100))
def test_over_any_time_a_bucket_pays_for_its_amount_and_what_flowed_in(steps, amount, period_s):
    clock, rate = Clock(), Rate(amount, period_s)
    buckets, payments = Buckets(clock=clock), []
    for wait_s, cost in steps:
        clock.now_s += wait_s
        if buckets.take("a", rate, cost).is_enough:
            payments.append((clock.now_s, cost))
    for first in range(len(payments)):
        passed_s = payments[-1][0] - payments[first][0]
        paid = sum(cost for _, cost in payments[first:])
        assert paid <= amount * (1 + passed_s / period_s) + 1e-6


@given(steps=steps, amount=st.integers(8, 40), period_s=st.floats(1, 100))
def test_what_was_refused_is_paid_for_after_the_time_that_was_named(steps, amount, period_s):
    clock, rate = Clock(), Rate(amount, period_s)
    buckets = Buckets(clock=clock)
    for wait_s, cost in steps:
        clock.now_s += wait_s
        level = buckets.take("a", rate, cost)
        assert level.is_enough == (level.retry_after_s == 0)
        if not level.is_enough:
            clock.now_s += level.retry_after_s + 1e-6
            assert buckets.take("a", rate, cost).is_enough


def test_levels():
    clock = Clock()
    buckets, rate = Buckets(clock=clock), Rate(10, 60)
    assert buckets.look("a", rate, 0).remaining == 10
    level = buckets.take("a", rate, 4)
    assert (level.limit, level.remaining, level.full_after_s) == (10, 6, 24)
    clock.now_s += 6
    assert buckets.look("a", rate).remaining == 7
    assert buckets.look("a", rate, 8).retry_after_s == 6
    assert buckets.look("b", rate).remaining == 10


def test_a_full_bucket_pays_for_one_request_that_is_larger():
    clock = Clock()
    buckets, rate = Buckets(clock=clock), Rate(10, 60)
    assert buckets.take("a", rate, 25).is_enough
    assert not buckets.take("a", rate).is_enough
    clock.now_s += 149
    assert not buckets.take("a", rate, 25).is_enough
    clock.now_s += 1
    assert buckets.take("a", rate, 25).is_enough


def test_a_correction_gives_back_or_takes_more():
    buckets, rate = Buckets(clock=Clock()), Rate(10, 60)
    buckets.take("a", rate, 8)
    buckets.correct("a", rate, -5)
    assert buckets.look("a", rate).remaining == 7
    buckets.correct("a", rate, 6)
    assert buckets.look("a", rate).remaining == 1


def test_the_oldest_names_are_forgotten():
    buckets, rate = Buckets(max_names=100, clock=Clock()), Rate(1, 60)
    for number in range(1000):
        buckets.take(str(number), rate)
    assert len(buckets) == 100
    assert not buckets.take("999", rate).is_enough
    assert buckets.take("1", rate).is_enough
