"""Caps of keys and accounts begin anew with each day and each month, in UTC, as clients see them."""

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest

from shoestring.serve.accounts.keys import KeySettings
from shoestring.serve.accounts.people import change_account
from shoestring.serve.ledger.audit import audit
from shoestring.serve.ledger.operations import add_funds
from shoestring.serve.ledger.prices import NANOS
from tests.serve.site import new_site
from tests.serve.words import CHAT, MOST, PRICE, PRICES, PROMPT

HELD = -(-(PROMPT + 2 * MOST) * NANOS // 10**6)


class Clock:
    """A clock that stands."""

    def __init__(self):
        self.set("2026-11-30 23:59:58")

    def set(self, text):
        self.time_s = datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()

    def __call__(self):
        return self.time_s


@pytest.fixture
def bank(database_url):
    """A service whose clock stands: (site, clock, account id)."""
    clock = Clock()
    site = new_site(database_url, prices=PRICES, clock=clock)
    with site.client:
        account = site.person().get("/account").json()["id"]
        site.do(site.hosting.accounts.change, add_funds, "f", account, "grant", NANOS, 0)
        yield site, clock, account


def asker(site, account, **caps):
    """A function that asks with a new key, and returns the status and the message."""
    key = site.do(site.hosting.accounts.add_key, account, KeySettings(**caps))

    def ask(**fields):
        headers = {"Authorization": f"Bearer {key}"}
        reply = site.client.post("/v1/chat/completions", json={**CHAT, **fields}, headers=headers)
        return reply.status_code, reply.text

    return ask


def test_a_day_ends_and_the_cap_of_the_day_begins_anew(bank):
    site, clock, account = bank
    ask, free = asker(site, account, day_cap=HELD + PRICE), asker(site, account)
    assert [ask()[0], ask(stream=True)[0]] == [200, 200]
    status, text = ask()
    assert (status, "2026-11-30 leaves less" in text, "wait for the next day" in text) == (402, True, True)
    assert free()[0] == 200  # another key of the account
    clock.set("2026-12-01 00:00:00")
    assert [ask()[0] for _ in range(3)] == [200, 200, 402]
    clock.set("2026-12-02 12:00:00")
    assert ask()[0] == 200
    assert site.do(site.hosting.accounts.read, audit) == []


def test_a_month_ends_and_so_does_its_cap_for_all_keys_of_the_account(bank):
    site, clock, account = bank
    site.do(site.hosting.accounts.change, lambda c: change_account(c, account, month_cap=HELD + 2 * PRICE))
    one, other = asker(site, account, day_cap=HELD), asker(site, account)
    assert [one()[0], one()[0]] == [200, 402]
    assert [other()[0], other()[0]] == [200, 200]
    assert "the next month" in other()[1]
    clock.set("2026-11-30 23:59:59")
    assert [one()[0], other()[0]] == [402, 402]
    clock.set("2026-12-01 00:00:00")
    assert [one()[0], other()[0], other()[0], other()[0]] == [200, 200, 200, 402]
    assert site.do(site.hosting.accounts.read, audit) == []


def test_a_reply_over_midnight_counts_on_the_day_on_which_it_began(bank):
    site, clock, account = bank
    ask = asker(site, account, day_cap=HELD)
    backend = site.client.app.state.service.backends["words"]
    backend.gate.clear()
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(ask)
        while backend.num_open == 0:
            time.sleep(0.01)
        clock.set("2026-12-01 00:00:10")
        backend.gate.set()
        assert answer.result()[0] == 200
    assert ask()[0] == 200
    clock.set("2026-11-30 23:59:59")
    assert ask()[0] == 402
    assert site.do(site.hosting.accounts.read, audit) == []
