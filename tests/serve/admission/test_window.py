"""Counts by second against a list of all events."""

from hypothesis import given
from hypothesis import strategies as st

from shoestring.serve.admission.window import Window


@given(st.lists(st.tuples(st.floats(0, 30), st.integers(1, 3)), max_size=50), st.integers(1, 10))
def test_counts_are_those_of_the_last_seconds(events, span_s):
    now_s = 100.5
    window, times = Window(10, lambda: now_s), []
    for wait_s, number in events:
        now_s += wait_s
        window.add(number)
        times += [int(now_s)] * number
        assert window.count(span_s) == sum(each > int(now_s) - span_s for each in times)
        assert window.count() == sum(each > int(now_s) - 10 for each in times)
