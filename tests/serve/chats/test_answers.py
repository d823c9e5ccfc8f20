"""Answers are admitted and paid like requests, and end in order with their process, or after it."""

import json
import time

import pytest
from sqlalchemy import select, update

from shoestring.serve.admission.admission import Admission, Limits
from shoestring.serve.chats import answers as module
from shoestring.serve.ledger.audit import audit
from shoestring.serve.ledger.operations import add_funds, balance
from shoestring.serve.ledger.prices import NANOS
from shoestring.serve.storage.database import DatabaseGone
from shoestring.serve.storage.tables import accounts, messages, servers
from tests.serve.asking import ANSWER, MESSAGE, TEXT, ask, ended, events, message, text_of, until, words
from tests.serve.postgres import new_database
from tests.serve.site import new_site
from tests.serve.sqlite import new_sqlite
from tests.serve.words import CHAT, PRICE, PRICES, WORDS

pytestmark = pytest.mark.usefixtures("quick_answers")


@pytest.fixture
def twins(postgres_url):
    """Two processes of one service."""
    with new_database(postgres_url) as url:
        one, two = new_site(url), new_site(url)
        with one.client, two.client:
            yield one, two


def test_it_is_paid_like_any_request(database_url):
    site = new_site(database_url, prices=PRICES)
    with site.client:
        ada = site.person()
        database = site.hosting.accounts.database
        account_id = site.do(
            database.read, lambda connection: connection.execute(select(accounts.c.id)).scalar()
        )
        ask(ada)
        assert "Insufficient Balance" in ended(ada)["error"]

        def give(connection):
            add_funds(connection, "funds", account_id, "top_up", NANOS, 0)

        site.do(database.write, give)
        assert ada.post("/answers", json={**ANSWER, "id": "answer-2", "chat": None}).status_code == 202
        figures = events(ada, answer_id="answer-2")[-2][1]["figures"]
        assert (figures["cost"], figures["currency"]) == (f"{PRICE / NANOS:.6f}", "USD")
        present = site.do(database.read, lambda connection: balance(connection, account_id))
        assert (present.total, present.held) == (NANOS - PRICE, 0)
        assert site.do(database.read, audit) == []


def test_an_account_that_may_do_one_thing_at_a_time_has_its_answer(file_site):
    ada = file_site.person()
    database = file_site.hosting.accounts.database

    def limit(connection):
        connection.execute(update(accounts).values(max_concurrency=1))

    file_site.do(database.write, limit)
    file_site.hosting.accounts.authenticator.forget()
    words(file_site).gate.clear()
    assert ada.post("/answers", json={**ANSWER, "chat": None}).status_code == 202
    until(lambda: words(file_site).num_open)
    assert ada.post("/v1/chat/completions", json=CHAT).status_code == 429
    with ada.stream("GET", "/answers/answer-1") as stream:
        words(file_site).gate.set()
        assert stream.status_code == 200
        stream.read()
    assert ada.post("/v1/chat/completions", json=CHAT).status_code == 200


def test_its_place_in_the_queue_is_told(file_site):
    ada = file_site.person()
    file_site.app.state.service.admission = Admission(Limits(), slots={"words": 1})
    words(file_site).gate.clear()
    for number in (1, 2, 3):
        body = {**ANSWER, "id": f"answer-{number}", "chat": None}
        assert ada.post("/answers", json=body).status_code == 202
    with ada.stream("GET", "/answers/answer-3") as stream:
        lines = (line for line in stream.iter_lines() if line.startswith("data"))
        assert json.loads(next(lines)[6:]) == {"object": "place", "place": 2}
        ada.delete("/answers/answer-1")
        assert json.loads(next(lines)[6:]) == {"object": "place", "place": 1}
        words(file_site).gate.set()
        assert list(lines)[-1] == "data: [DONE]"
    assert text_of(events(ada, answer_id="answer-3")) == TEXT


def test_an_account_has_so_many_answers_and_an_answer_so_many_readers(file_site, monkeypatch):
    ada, bob = file_site.person(), file_site.person("bob@example.com")
    monkeypatch.setattr(module, "MAX_ANSWERS", 1)
    monkeypatch.setattr(module, "MAX_READERS", 0)
    words(file_site).gate.clear()
    assert ada.post("/answers", json={**ANSWER, "chat": None}).status_code == 202
    reply = ada.post("/answers", json={**ANSWER, "id": "answer-2", "chat": None})
    assert (reply.status_code, "stop one" in reply.text) == (429, True)
    assert bob.post("/answers", json={**ANSWER, "chat": None}).status_code == 202
    reply = ada.get("/answers/answer-1")
    assert (reply.status_code, "close a page" in reply.text) == (429, True)
    words(file_site).gate.set()


def test_a_service_that_ends_waits_and_then_keeps_what_there_is(tmp_path):
    url = new_sqlite(tmp_path / "service.db")
    for seconds, is_open in ((10.0, True), (0.0, False)):
        site = new_site(url)
        with site.client:
            ada = site.person(f"ada{seconds}@example.com")
            words(site).gate.clear()
            ask(ada)
            until(lambda: message(ada)["content"])  # noqa: B023
            site.app.state.service.drain_end_s = time.monotonic() + seconds
            if is_open:
                words(site).gate.set()
        site = new_site(url)
        with site.client:
            browser = site.browser()
            body = {"email": f"ada{seconds}@example.com", "password": "correct horse battery"}
            assert browser.post("/auth/sign-in", json=body).status_code == 200
            last = message(browser)
            assert (last["finish_reason"], last["is_running"]) == (
                "stop" if is_open else "interrupted",
                False,
            )
            assert last["content"] == TEXT if is_open else TEXT.startswith(last["content"])


def test_what_a_dead_process_wrote_is_interrupted(site):
    ada = site.person()
    ask(ada)
    ended(ada)
    store = site.app.state.chats

    def leave(connection):
        values = {"server_id": "srv_dead", "finish_reason": None, "content": "half", "folded": ""}
        connection.execute(update(messages).values(**values))

    site.do(store.write, leave)
    assert message(ada)["is_running"]
    site.do(store.tend)
    last = message(ada)
    assert (last["content"], last["finish_reason"], last["is_running"]) == ("half", "interrupted", False)
    assert len(ada.get("/chats?search=half").json()["chats"]) == 1


def test_a_process_that_was_taken_for_dead_goes_on(site):
    ada = site.person()
    words(site).gate.clear()
    ask(ada)
    until(lambda: message(ada)["content"])
    store = site.app.state.chats
    site.do(store.write, lambda connection: connection.execute(servers.delete()) and None)
    site.do(store.tend)
    words(site).gate.set()
    assert until(lambda: (last := message(ada))["finish_reason"] == "stop" and last)["content"] == TEXT


def test_a_database_that_is_away_for_a_moment_loses_nothing(file_site, monkeypatch):
    ada = file_site.person()
    words(file_site).gate.clear()
    ask(ada)
    until(lambda: message(ada)["content"])
    store, write = file_site.app.state.chats, file_site.app.state.chats.write

    async def gone(*arguments, **values):
        raise DatabaseGone

    monkeypatch.setattr(store, "write", gone)
    words(file_site).gate.set()
    assert text_of(events(ada)) == TEXT  # its readers do not wait for the database
    assert message(ada)["is_running"]
    monkeypatch.setattr(store, "write", write)
    assert ended(ada)["content"] == TEXT


def test_an_answer_of_another_process_is_read_and_stopped(twins):
    one, two = twins
    ada = one.person()
    other = two.browser()
    other.post("/auth/sign-in", json={"email": "ada@example.com", "password": "correct horse battery"})
    words(one).gate.clear()
    ask(ada)
    until(lambda: message(ada)["content"])
    assert other.post("/answers", json=ANSWER).status_code == 202
    assert other.get("/answers").json() == {"answers": [{"id": "answer-1", "chat": "chat-0001"}]}
    assert words(two).num_open == 0
    with other.stream("GET", "/answers/answer-1?after=4") as stream:
        words(one).gate.set()
        stream.read()
    data = [json.loads(line[6:]) for line in stream.text.split("\n") if line.startswith("data: {")]
    assert text_of([(0, each) for each in data]) == TEXT[3:]
    assert data[-1]["figures"]["completion_tokens"] == WORDS
    words(one).gate.clear()
    second = {**MESSAGE, "id": "answer-2", "created_ms": 1}
    ada.put("/chats/chat-0001/messages/answer-2", json=second)
    assert ada.post("/answers", json={**ANSWER, "id": "answer-2"}).status_code == 202
    until(lambda: words(one).num_open)
    assert other.delete("/answers/answer-2").status_code == 204
    assert ended(ada, 1)["finish_reason"] == "cancelled"
