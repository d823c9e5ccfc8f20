from hypothesis import given
from hypothesis import strategies as st

from shoestring.serve.backends.breaker import MOST_FAILURES, Breaker

EVENTS = ("begin_probe", "token", "good_probe", "bad_probe", "connection_failed")


def happen(breaker, event):
    if event == "good_probe":
        breaker.probe_ended(ok=True)
    elif event == "bad_probe":
        breaker.probe_ended(ok=False)
    else:
        getattr(breaker, event)()


@given(st.lists(st.sampled_from(EVENTS)))
def test_only_a_probe_with_a_token_lets_requests_in_again(events):
    breaker = Breaker()
    for event in events:
        was_closed = breaker.lets_requests
        happen(breaker, event)
        if not was_closed and breaker.lets_requests:
            assert event == "good_probe"
        if was_closed and not breaker.lets_requests:
            assert event in ("bad_probe", "connection_failed")


@given(st.lists(st.sampled_from(("token", "connection_failed"))))
def test_it_opens_at_the_third_failure_in_a_row_and_not_before(events):
    breaker, row, is_open = Breaker(), 0, False
    for event in events:
        happen(breaker, event)
        row = 0 if event == "token" else row + 1
        is_open = is_open or row == MOST_FAILURES
        assert breaker.lets_requests is not is_open


def test_a_probe_of_an_open_one_is_seen():
    breaker = Breaker()
    breaker.begin_probe()
    assert breaker.state == "closed"
    breaker.probe_ended(ok=False)
    breaker.begin_probe()
    assert breaker.state == "half_open"
    breaker.probe_ended(ok=True)
    assert breaker.state == "closed"
