"""Admission of callers: rates, requests at the same time, strangers, and the headers that say so."""

import asyncio
from contextlib import AsyncExitStack
from dataclasses import replace

import pytest

from shoestring.serve.admission.admission import Admission, Limits
from shoestring.serve.backends.errors import RequestError
from shoestring.serve.backends.reply import Usage, Work
from shoestring.serve.caller import LOCAL, Caller

LIMITS = Limits(requests_per_minute=None, stranger_per_minute=3, network_per_minute=5, strangers_per_s=8)


def new(**limits) -> Admission:
    return Admission(replace(LIMITS, **limits), slots={"mini": 4}, clock=lambda: 0.0)


@pytest.fixture
def admission() -> Admission:
    return new()


def refused(call, *arguments) -> bool:
    try:
        call(*arguments)
    except RequestError as error:
        return error.status == 429 and error.retry_after_s > 0
    return False


def fresh(caller: Caller) -> Caller:
    """A caller for one more request."""
    return replace(caller, ending=AsyncExitStack())


def work(prompt_tokens: int, max_tokens: int) -> Work:
    return Work(model="mini", prompt_tokens=prompt_tokens, max_tokens=max_tokens, start=None)


def test_strangers_pay_by_address_network_and_together(admission):
    assert [refused(admission.check_stranger, "192.0.2.1") for _ in range(4)] == [False] * 3 + [True]
    assert not admission.may_try("192.0.2.1")
    assert [refused(admission.check_stranger, "192.0.2.2") for _ in range(3)] == [False, False, True]
    assert [refused(admission.check_stranger, f"192.0.{n}.1") for n in range(3, 7)] == [False] * 3 + [True]
    assert admission.may_try("198.51.100.1")


def test_familiar_addresses_are_not_in_one_pot_with_strangers(admission):
    admission.connections.greet("192.0.2.9")
    for number in range(20):
        refused(admission.check_stranger, f"192.0.2.{number + 20}")
        refused(admission.check_stranger, f"192.0.{number + 20}.1")
    assert not refused(admission.check_stranger, "192.0.2.9")


def test_an_account_has_one_rate_for_all_its_keys_and_each_key_its_own():
    admission = new(requests_per_minute=5)
    keys = [Caller(account_id="a", key_id=name, requests_per_minute=3) for name in ("k1", "k2")]
    assert [refused(admission.check_caller, keys[0]) for _ in range(4)] == [False] * 3 + [True]
    assert [refused(admission.check_caller, keys[1]) for _ in range(2)] == [False, True]
    assert not refused(admission.check_caller, Caller(account_id="b"))


def test_an_accounts_own_rate_is_in_place_of_everyones():
    admission = new(requests_per_minute=1)
    session = Caller(account_id="a", requests_per_minute=3)
    assert [refused(admission.check_caller, session) for _ in range(4)] == [False] * 3 + [True]


@pytest.mark.parametrize(("everyone", "own", "most"), [(2, None, 2), (2, 3, 3), (None, 1, 1)])
def test_requests_at_the_same_time_are_limited_for_the_account(everyone, own, most):
    admission, caller = new(concurrency=everyone), Caller(account_id="a", max_concurrency=own)

    async def main():
        callers = [fresh(caller) for _ in range(most)]
        for each in callers:
            admission.check_caller(each)
        assert refused(admission.check_caller, fresh(caller))
        await callers[0].ending.aclose()
        callers[0] = fresh(caller)
        admission.check_caller(callers[0])
        for each in callers:
            await each.ending.aclose()
        assert not admission._num_requests

    asyncio.run(main())


def test_tokens_are_taken_as_predicted_and_corrected_at_the_end(admission):
    caller = Caller(account_id="a", tokens_per_minute=1000)

    async def main():
        first = fresh(caller)
        place = admission.turn(first, work(100, 200))
        assert headers(admission, caller)["x-ratelimit-remaining-tokens"] == "700"
        place._count(Usage(prompt_tokens=100, completion_tokens=50))
        await first.ending.aclose()
        assert headers(admission, caller)["x-ratelimit-remaining-tokens"] == "850"
        admission.turn(fresh(caller), work(600, 200))
        assert refused(admission.turn, fresh(caller), work(60, 20))

    asyncio.run(main())


def test_a_request_that_ends_gives_its_turn_back(admission):
    async def main():
        callers = [fresh(LOCAL) for _ in range(6)]
        places = [admission.turn(each, work(10, 10)) for each in callers]
        assert sum(place.is_running for place in places) == 4
        for each in callers[:2]:
            await each.ending.aclose()
        assert places[5].is_running
        assert admission.paying_wait_s() == 0.0

    asyncio.run(main())


def headers(admission, caller, path="/v1/chat/completions") -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in admission.headers(caller, path)}


def test_headers_in_both_dialects(admission):
    caller = Caller(account_id="a", requests_per_minute=120, tokens_per_minute=6000)
    admission.check_caller(caller)
    assert headers(admission, caller) == {
        "x-ratelimit-limit-requests": "120",
        "x-ratelimit-remaining-requests": "119",
        "x-ratelimit-reset-requests": "500ms",
        "x-ratelimit-limit-tokens": "6000",
        "x-ratelimit-remaining-tokens": "6000",
        "x-ratelimit-reset-tokens": "0ms",
    }
    anthropic = headers(admission, caller, "/anthropic/v1/messages")
    assert anthropic["anthropic-ratelimit-requests-remaining"] == "119"
    assert anthropic["anthropic-ratelimit-tokens-reset"].endswith("Z")
    assert headers(admission, LOCAL) == {}
