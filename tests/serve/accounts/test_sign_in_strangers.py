"""Strangers who ask too much: they are refused, and those who are known are not."""

from dataclasses import replace

import pytest

from shoestring.serve.admission.admission import Limits

CHAT = {"model": "words", "messages": [{"role": "user", "content": "hi"}]}


@pytest.fixture
def limit(site):
    """Sets the limits of the service."""

    def limit(**limits):
        site.hosting.admission.limits = replace(Limits(), **limits)

    return limit


def test_strangers_do_not_use_up_what_an_account_has(site, limit):
    """Nobody's requests are of no account: a flood of them must not count as one account's."""
    person = site.person()
    limit(requests_per_minute=5, concurrency=2, stranger_per_minute=1000)
    stranger = site.browser()
    assert {stranger.get("/status").status_code for _ in range(20)} == {200}
    assert "x-ratelimit-limit-requests" not in stranger.get("/status").headers
    assert person.get("/account").status_code == 200


def test_an_accounts_requests_end_one_after_the_other(site, limit):
    """Requests under way are counted down again, also those of a caller that is remembered."""
    person = site.person()
    key = person.post("/account/keys", json={}).json()["key"]
    limit(concurrency=1)
    for _ in range(5):
        reply = person.post("/v1/chat/completions", json=CHAT, headers={"authorization": f"Bearer {key}"})
        assert reply.status_code == 200
        assert person.get("/account").status_code == 200
    assert not site.hosting.admission._num_requests


def test_a_neighbour_with_wrong_keys_does_not_lock_out_the_owner_of_a_right_one(site, limit):
    key = site.person().post("/account/keys", json={}).json()["key"]
    limit(stranger_per_minute=3)
    stranger = site.browser()
    for text in ("ss-wrong", f"{key[:-1]}x"):
        wrong = {"authorization": f"Bearer {text}"}
        assert 429 in [stranger.get("/v1/models", headers=wrong).status_code for _ in range(5)]
    assert stranger.get("/v1/models", headers={"authorization": f"Bearer {key}"}).status_code == 200


def test_wrong_keys_are_refused_and_then_not_even_looked_at(site, limit):
    limit(stranger_per_minute=3)
    stranger = site.browser()
    wrong = {"authorization": "Bearer ss-wrong"}
    statuses = [stranger.get("/v1/models", headers=wrong).status_code for _ in range(5)]
    assert statuses == [401, 401, 401, 429, 429]
    assert site.hosting.gate.signals.read(0).refusals_burst >= 3
