"""The tally of the last minutes."""

import pytest

from shoestring.serve.pages.tally import Tally
from shoestring.serve.watch import Course


def test_replies_are_counted_by_what_they_were_and_forgotten_after_minutes():
    now_s = [1000.0]
    tally = Tally(lambda: now_s[0])
    for status in (200, 200, 404, 429, 401, 500, 503, 499):
        tally.observe(Course(begin_s=now_s[0], end_s=now_s[0], status=status))
    names = ("replies", "failures", "full", "refusals")
    assert [tally.count(name) for name in names] == [8, 1, 1, 2]
    now_s[0] += 301
    assert [tally.count(name) for name in names] == [0, 0, 0, 0]


def test_the_median_time_to_the_first_token():
    now_s = [1000.0]
    tally = Tally(lambda: now_s[0])
    assert tally.first_token_s is None
    for wait_s in (0.1, 0.2, 5.0):
        tally.observe(Course(begin_s=999.0, first_token_s=999.0 + wait_s, end_s=1000.0, status=200))
    assert tally.first_token_s == pytest.approx(0.2)
    now_s[0] += 301
    assert tally.first_token_s is None
