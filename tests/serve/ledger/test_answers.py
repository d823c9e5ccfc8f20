"""A key is charged once: the same answer again, and a clear 409 where there is none."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import func, select

from shoestring.serve.backends.errors import RequestError
from shoestring.serve.ledger import answers
from shoestring.serve.ledger.answers import Answer, Answers
from shoestring.serve.ledger.audit import audit
from shoestring.serve.storage.tables import operations
from tests.serve.words import CHAT, PRICE

PATH = "/v1/chat/completions"


def post(client, key="k", path=PATH, **fields):
    return client.post(path, json={**CHAT, **fields}, headers={"Idempotency-Key": key})


def charges(look):
    return look(lambda connection: connection.execute(select(func.sum(operations.c.charge))).scalar_one())


def test_a_repetition_gets_the_same_answer_for_nothing(paid):
    client, _, look = paid
    first, second = post(client), post(client)
    assert second.content == first.content
    assert second.headers["content-type"] == first.headers["content-type"]
    assert second.headers["idempotent-replayed"] == "true"
    assert second.headers["x-request-id"] != first.headers["x-request-id"]
    assert ("x-request-cost" in first.headers, "x-request-cost" in second.headers) == (True, False)
    other = post(client, max_tokens=3)
    assert (other.status_code, "use a new key" in other.text) == (409, True)
    assert post(client, path="/v1/messages").json()["type"] == "error"
    assert charges(look) == PRICE
    assert post(client, "another").status_code == 200
    assert charges(look) == 2 * PRICE


def test_of_many_at_once_one_runs(paid):
    client, backend, look = paid
    backend.gate.clear()
    with ThreadPoolExecutor(12) as pool:
        asked = [pool.submit(post, client) for _ in range(12)]
        while sum(task.done() for task in asked) < 11:
            time.sleep(0.01)
        backend.gate.set()
        replies = sorted((task.result() for task in asked), key=lambda reply: reply.status_code)
    assert [reply.status_code for reply in replies] == [200] + [409] * 11
    assert "under way" in replies[1].text
    assert replies[1].headers["retry-after"] == "1"
    assert post(client).content == replies[0].content
    assert charges(look) == PRICE


def test_a_stream_and_an_old_answer_are_not_kept_and_not_run_again(paid, monkeypatch):
    client, _, look = paid
    assert post(client, "s", stream=True).status_code == 200
    assert post(client, "old").status_code == 200
    monkeypatch.setattr(answers, "KEPT_S", 0)
    for key, stream in (("s", True), ("s", False), ("old", False)):
        again = post(client, key, stream=stream)
        assert (again.status_code, "its answer is not here" in again.text) == (409, True)
    assert charges(look) == 2 * PRICE


def test_what_never_ran_may_be_asked_again_with_its_key(paid):
    client, backend, look = paid
    backend.error = RequestError("overloaded", "later", retry_after_s=1)
    assert post(client).status_code == 503
    backend.error = None
    assert post(client, model="none").status_code == 404
    assert [post(client).status_code for _ in range(2)] == [200, 200]
    assert charges(look) == PRICE


def test_memory_is_bounded():
    kept = Answers(max_bytes=5000)
    for number in range(10):
        name = bytes([number])
        kept._keep(name, Answer(request=b"", headers=(), body=b"x" * 1000, time_s=time.monotonic()))
    assert [kept._find(bytes([number])) is not None for number in (0, 7, 8, 9)] == [False, False, True, True]
    assert kept._num_bytes == 4000


STEPS = st.lists(
    st.tuples(
        st.sampled_from("ab"),
        st.booleans(),
        st.sampled_from([2, 20]),
        st.sampled_from(["ok", "ok", "busy", "leave"]),
    ),
    min_size=2,
    max_size=8,
)


@given(steps=STEPS)
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_there_are_never_two_charges_for_one_key(paid, steps):
    client, backend, look = paid
    prefix, before = str(time.monotonic()), charges(look)
    bodies = {}
    for key, stream, most, outcome in steps:
        backend.error = RequestError("overloaded", "later") if outcome == "busy" else None
        if outcome == "leave":
            headers, body = {"Idempotency-Key": prefix + key}, {**CHAT, "max_tokens": most, "stream": True}
            with client.stream("POST", PATH, json=body, headers=headers) as reply:
                next(reply.iter_lines(), None)
            continue
        reply = post(client, prefix + key, stream=stream, max_tokens=most)
        assert reply.status_code in (200, 409, 503)
        if reply.status_code == 200 and not stream:
            assert bodies.setdefault((key, most), reply.content) == reply.content
    while look(lambda c: c.execute(select(operations.c.id).where(operations.c.ended_s.is_(None))).first()):
        time.sleep(0.01)
    assert charges(look) - before <= PRICE * len({step[0] for step in steps})
    assert look(audit) == []
