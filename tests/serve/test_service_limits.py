"""Limits of a served model: refusals in each dialect, rates in headers, and turns of requests that wait."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from starlette.testclient import TestClient

from shoestring.serve.admission.admission import Admission, Limits
from shoestring.serve.app import build_app

CHAT = {"model": "mini", "messages": [{"role": "user", "content": "Use 3, 5, 7 to make 22."}]}


@pytest.fixture(scope="module")
def client(new_service):
    service = new_service()
    service.admission = Admission(slots={"mini": 1})
    with TestClient(build_app(service), raise_server_exceptions=False) as client:
        yield client


@pytest.fixture
def limit(client, monkeypatch):
    """Sets the limits of the service for a test."""

    def limit(**limits):
        admission = Admission(Limits(**limits), slots={"mini": 1})
        monkeypatch.setattr(client.app.state.service, "admission", admission)
        return admission

    return limit


def test_a_rate_is_in_the_headers_and_its_end_is_429(client, limit):
    limit(requests_per_minute=2)
    first = client.post("/v1/chat/completions", json={**CHAT, "max_tokens": 2})
    assert first.status_code == 200
    assert first.headers["x-ratelimit-limit-requests"] == "2"
    assert first.headers["x-ratelimit-remaining-requests"] == "1"
    second = client.post("/v1/messages", json={**CHAT, "max_tokens": 2})
    assert second.headers["anthropic-ratelimit-requests-remaining"] == "0"
    refused = client.post("/v1/chat/completions", json=CHAT)
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "rate_limit_exceeded")
    assert 25 < int(refused.headers["retry-after"]) <= 30
    refused = client.post("/v1/messages", json={**CHAT, "max_tokens": 2})
    assert (refused.status_code, refused.json()["error"]["type"]) == (429, "rate_limit_error")
    assert client.get("/health").status_code == 200


def test_tokens_have_a_rate_too(client, limit):
    limit(tokens_per_minute=300)
    reply = client.post("/v1/chat/completions", json={**CHAT, "max_tokens": 2})
    used = reply.json()["usage"]["total_tokens"]
    assert reply.headers["x-ratelimit-limit-tokens"] == "300"
    assert client.get("/v1/models").headers["x-ratelimit-remaining-tokens"] in (
        str(300 - used),
        str(301 - used),
    )
    refused = client.post("/v1/chat/completions", json={**CHAT, "max_tokens": 290})
    assert refused.status_code == 429


def test_requests_wait_for_the_only_slot_and_all_are_answered(client, limit):
    admission = limit()

    def ask(number: int):
        body = {**CHAT, "max_tokens": 20, "temperature": 0, "stream": bool(number % 2)}
        return client.post("/v1/chat/completions", json=body)

    with ThreadPoolExecutor(6) as pool:
        replies = list(pool.map(ask, range(6)))
    assert [reply.status_code for reply in replies] == [200] * 6
    assert len({replies[number].json()["choices"][0]["message"]["content"] for number in (0, 2, 4)}) == 1
    assert all("[DONE]" in replies[number].text for number in (1, 3, 5))
    turns = admission.turns["mini"]
    assert (turns.queue.num_running, turns.queue.num_waiting()) == (0, 0)
    assert len(turns.waits_s) == 6


def test_several_texts_of_one_request_wait_for_each_other(client, limit):
    limit()
    body = {"model": "mini", "prompt": ["a", "b", "c"], "max_tokens": 3}
    for stream in (False, True):
        assert client.post("/v1/completions", json={**body, "stream": stream}).status_code == 200


def test_requests_at_the_same_time_end_with_their_replies(client, limit):
    admission = limit(concurrency=1)
    for _ in range(3):
        assert client.post("/v1/chat/completions", json={**CHAT, "max_tokens": 2}).status_code == 200
        assert client.post("/v1/chat/completions", json={"model": "no"}).status_code in (400, 422)
    assert not admission._num_requests
