"""Chats are kept as their owner wrote them, found again, deleted with a way back, and not for others."""

import time

import pytest
from starlette.testclient import TestClient

from shoestring.serve.app import build_app
from shoestring.serve.chats import chats, messages
from shoestring.serve.chats.open import open_chats
from shoestring.serve.config import ServiceConfig
from shoestring.serve.service import Service
from tests.serve.words import Words

CHAT = {
    "id": "chat-0001",
    "title": "Straße nach Köln",
    "folder": "Wege",
    "is_pinned": True,
    "created_ms": 1,
    "changed_ms": 2,
    "leaf": "message2",
    "settings": {
        "model": "words",
        "models": None,
        "system": "Be brief.",
        "thinking": "off",
        "effort": None,
        "temperature": 0.5,
        "top_p": None,
        "max_tokens": 20,
    },
}
QUESTION = {
    "id": "message1",
    "parent": None,
    "role": "user",
    "content": "Is 100% of A_B \\ right? 😀",
    "reasoning_content": "",
    "model": None,
    "attachments": [{"name": "notes.txt", "text": "ünlü"}],
    "created_ms": 5,
    "finish_reason": None,
    "error": None,
    "is_running": False,
    "figures": {},
}
ANSWER = {
    **QUESTION,
    "id": "message2",
    "parent": "message1",
    "role": "assistant",
    "content": "Yes",
    "attachments": [],
    "created_ms": 6,
    "finish_reason": "stop",
    "figures": {"first_s": 0.5, "completion_tokens": 3, "cost": "0.000012", "currency": "USD"},
}
WHOLE = {**CHAT, "messages": [QUESTION, ANSWER]}
PLACES = (
    ("get", "/chats/chat-0001"),
    ("put", "/chats/chat-0001/messages/message1"),
    ("delete", "/chats/chat-0001"),
    ("post", "/chats/chat-0001/restore"),
)


@pytest.fixture
def local(tmp_path):
    """A service without accounts that keeps its person's chats."""
    store = open_chats(ServiceConfig(data=str(tmp_path)), None)
    app = build_app(Service({"words": Words()}), None, store)
    with TestClient(app, raise_server_exceptions=False, base_url="http://localhost:8000") as client:
        yield client


def ids(reply):
    assert reply.status_code == 200, reply.text
    return [chat["id"] for chat in reply.json()["chats"]]


def test_a_chat_comes_back_as_it_was_kept(site):
    ada = site.person()
    assert ada.get("/chats").json() == {"chats": []}
    assert ada.put("/chats/chat-0001", json=WHOLE).status_code == 204
    assert ada.get("/chats/chat-0001").json() == WHOLE
    assert ada.get("/chats").json() == {"chats": [CHAT]}
    assert ada.put("/chats/chat-0001", json={**CHAT, "title": "New"}).status_code == 204
    assert ada.get("/chats/chat-0001").json() == {**WHOLE, "title": "New"}  # its messages stay
    longer = {**ANSWER, "content": "Yes, it is", "attachments": [{"name": "a", "text": "b"}]}
    assert ada.put("/chats/chat-0001/messages/message2", json=longer).status_code == 204
    assert ada.get("/chats/chat-0001").json()["messages"] == [QUESTION, longer]


def test_what_no_database_keeps_is_replaced(site):
    ada = site.person()
    body = b'{"id": "chat-0001", "title": "half \\ud83d", "messages": [{"id": "message1", "role": "user", '
    body += b'"content": "a\\u0000b \\ud83d\\ude00"}]}'
    reply = ada.put("/chats/chat-0001", content=body, headers={"content-type": "application/json"})
    assert reply.status_code == 204, reply.text
    chat = ada.get("/chats/chat-0001").json()
    assert chat["title"] == "half \ufffd"
    assert chat["messages"][0]["content"] == "a\ufffdb 😀"


def test_the_last_change_is_the_first_of_the_list(file_site):
    ada = file_site.person()
    for number in range(250):
        chat = {"id": f"chat-{number:04}", "changed_ms": number}
        assert ada.put(f"/chats/chat-{number:04}", json=chat).status_code == 204
    assert ids(ada.get("/chats")) == [f"chat-{number:04}" for number in reversed(range(250))]


@pytest.mark.parametrize(
    ("words", "is_found"),
    [
        ("STRASSE", True),
        ("köln straße", True),
        ("KÖLN a_b", True),  # one in the title, one in a message
        ("100%", True),
        ("0_% ", False),  # no wildcards
        ("a%b", False),
        ("\\ r", True),
        ("yes right", True),
        ("yes wrong", False),
        ("", True),
    ],
)
def test_a_search_finds_chats_that_have_all_words(site, words, is_found):
    ada = site.person()
    ada.put("/chats/chat-0001", json=WHOLE)
    ada.put("/chats/chat-0002", json={"id": "chat-0002", "title": "other"})
    found = ids(ada.get("/chats", params={"search": words}))
    assert ("chat-0001" in found) == is_found
    assert ("chat-0002" in found) == (not words)


def test_a_search_is_limited(file_site):
    ada = file_site.person()
    assert ada.get("/chats", params={"search": "a " * 11}).status_code == 400
    assert ada.get("/chats", params={"search": "a" * 201}).status_code == 400
    assert ada.get("/chats", params={"search": "\0"}).status_code == 200


def test_a_deleted_chat_can_be_restored_for_an_hour(site, monkeypatch):
    ada = site.person()
    ada.put("/chats/chat-0001", json=WHOLE)
    assert ada.delete("/chats/chat-0001").status_code == 204
    assert ada.get("/chats").json() == {"chats": []}
    assert ada.get("/chats", params={"search": "yes"}).json() == {"chats": []}
    assert ada.get("/chats/chat-0001").status_code == 404
    assert ada.delete("/chats/chat-0001").status_code == 404
    assert ada.put("/chats/chat-0001", json=CHAT).status_code == 409  # another tab does not know
    assert ada.put("/chats/chat-0001/messages/message1", json=QUESTION).status_code == 404
    assert ada.post("/chats/chat-0001/restore").status_code == 204
    assert ada.get("/chats/chat-0001").json() == WHOLE
    ada.delete("/chats")
    assert ada.get("/chats").json() == {"chats": []}
    database = site.hosting.accounts.database
    now_ms = int(time.time() * 1000)

    async def erase(time_ms):
        return await database.write(lambda connection: chats.erase_old(connection, time_ms))

    assert site.do(erase, now_ms + chats.UNDO_MS - 60_000) == 0
    assert site.do(erase, now_ms + chats.UNDO_MS) == 1
    assert ada.post("/chats/chat-0001/restore").status_code == 404
    ada.put("/chats/chat-0001", json=CHAT)
    assert ada.get("/chats/chat-0001").json() == {**CHAT, "messages": []}


def test_an_import_brings_back_a_deleted_chat(file_site):
    ada = file_site.person()
    ada.put("/chats/chat-0001", json=WHOLE)
    ada.delete("/chats/chat-0001")
    assert ada.put("/chats/chat-0001", json={**CHAT, "messages": [ANSWER]}).status_code == 204
    assert ada.get("/chats/chat-0001").json() == WHOLE


def test_nobody_sees_or_changes_the_chats_of_others(site):
    ada, bob = site.person(), site.person("bob@example.com")
    ada.put("/chats/chat-0001", json=WHOLE)
    for method, path in PLACES:
        body = {"json": QUESTION} if method == "put" else {}
        assert bob.request(method, path, **body).status_code == 404, path
    assert bob.get("/chats").json() == {"chats": []}
    assert bob.get("/chats", params={"search": "yes"}).json() == {"chats": []}
    bob.delete("/chats")
    assert bob.put("/chats/chat-0001", json={**CHAT, "title": "Bob's"}).status_code == 204  # his own
    assert ada.get("/chats/chat-0001").json() == WHOLE
    assert bob.get("/chats/chat-0001").json() == {**CHAT, "title": "Bob's", "messages": []}
    stranger = site.browser()
    for method, path in (*PLACES, ("get", "/chats"), ("delete", "/chats"), ("put", "/chats/chat-0001")):
        assert stranger.request(method, path).status_code == 401, path


def test_a_page_of_another_site_changes_nothing(file_site):
    ada = file_site.person()
    ada.put("/chats/chat-0001", json=WHOLE)
    for headers in ({"sec-fetch-site": "cross-site"}, {"origin": "https://evil.example"}):
        assert ada.delete("/chats/chat-0001", headers=headers).status_code == 403
    assert ada.get("/chats/chat-0001").json() == WHOLE


def test_limits_are_told_in_a_sentence(file_site, monkeypatch):
    ada = file_site.person()
    ada.put("/chats/chat-0001", json=WHOLE)
    monkeypatch.setattr(chats, "MAX_CHATS", 1)
    reply = ada.put("/chats/chat-0002", json={"id": "chat-0002"})
    assert (reply.status_code, "delete some" in reply.text) == (409, True)
    monkeypatch.setattr(messages, "MAX_MESSAGES", 2)
    reply = ada.put("/chats/chat-0001/messages/message3", json={**QUESTION, "id": "message3"})
    assert (reply.status_code, "begin a new one" in reply.text) == (409, True)
    assert ada.put("/chats/chat-0001/messages/message2", json=ANSWER).status_code == 204
    monkeypatch.setattr(messages, "MAX_BYTES", 100)
    reply = ada.put("/chats/chat-0001/messages/message2", json={**ANSWER, "content": "ü" * 60})
    assert (reply.status_code, "longer than" in reply.text) == (413, True)
    monkeypatch.setattr(chats, "MAX_ACCOUNT_BYTES", 100)
    reply = ada.put("/chats/chat-0001/messages/message2", json={**ANSWER, "content": "a" * 80})
    assert (reply.status_code, "delete some" in reply.text) == (409, True)
    assert ada.get("/chats/chat-0001").json() == WHOLE


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/chats/short", {"id": "short"}),
        ("/chats/chat-0001", {"id": "chat-0002"}),
        ("/chats/chat-0001", {"id": "chat-0001", "extra": 1}),
        ("/chats/chat-0001", {"id": "chat-0001", "title": "a" * 301}),
        ("/chats/chat-0001", {"id": "chat-0001", "created_ms": -1}),
        ("/chats/chat-0001", {"id": "chat-0001", "settings": {"thinking": "maybe"}}),
        ("/chats/chat-0001", {"id": "chat-0001", "messages": [{"id": "message1", "role": "system"}]}),
        ("/chats/chat-0001/messages/message9", QUESTION),
    ],
)
def test_what_is_wrong_is_refused(file_site, path, body):
    ada = file_site.person()
    ada.put("/chats/chat-0001", json=CHAT)
    assert ada.put(path, json=body).status_code == 400
    assert ada.get("/chats/chat-0001").json() == {**CHAT, "messages": []}


def test_a_long_chat_is_read_in_parts(file_site, monkeypatch):
    monkeypatch.setattr(messages, "PART_BYTES", 1000)
    ada = file_site.person()
    long = [{**QUESTION, "id": f"message{i:04}", "content": "x" * (i % 7) * 100} for i in range(300)]
    assert ada.put("/chats/chat-0001", json={**CHAT, "messages": long}).status_code == 204
    assert ada.get("/chats/chat-0001").json()["messages"] == long


def test_the_export_has_them_and_the_deletion_of_the_account_erases_them(site):
    ada = site.person()
    ada.put("/chats/chat-0001", json=WHOLE)
    data = ada.get("/account/export").json()
    assert [chat["title"] for chat in data["chats"]] == [CHAT["title"]]
    assert {message["content"] for message in data["messages"]} == {QUESTION["content"], ANSWER["content"]}
    assert (data["shares"], len(data["accounts"])) == ([], 1)
    assert ada.post("/account/delete", json={"password": "correct horse battery"}).status_code == 204

    def keys(connection):
        return [connection.execute(table.select()).all() for table in (chats.chats, chats.messages)]

    assert site.do(site.hosting.accounts.database.read, keys) == [[], []]


def test_the_person_on_this_machine_has_chats_too(local, tmp_path):
    assert not (tmp_path / "chats.db").exists()  # nothing is made before it is asked for
    assert local.put("/chats/chat-0001", json=WHOLE).status_code == 204
    assert local.get("/chats/chat-0001").json() == WHOLE
    assert (tmp_path / "chats.db").stat().st_mode & 0o777 == 0o600


def test_another_process_with_the_same_chats_is_told_so(local, tmp_path):
    assert local.get("/chats").status_code == 200
    store = open_chats(ServiceConfig(data=str(tmp_path)), None)
    app = build_app(Service({"words": Words()}), None, store)
    with TestClient(app, base_url="http://localhost") as other:
        reply = other.get("/chats")
    assert (reply.status_code, "end it first" in reply.text) == (503, True)


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("localhost:8000", 200),
        ("127.0.0.1:8000", 200),
        ("[::1]:8000", 200),
        ("page.localhost", 200),
        ("evil.example", 403),
        ("evil.example:8000", 403),
        ("127.0.0.1.evil.example", 403),
        ("[", 403),
    ],
)
def test_a_name_of_another_site_that_leads_here_reads_nothing(local, host, status):
    assert local.get("/chats", headers={"host": host}).status_code == status


def test_a_page_of_another_site_changes_nothing_on_this_machine(local):
    local.put("/chats/chat-0001", json=WHOLE)
    for headers in ({"sec-fetch-site": "cross-site"}, {"origin": "http://evil.example"}):
        assert local.delete("/chats", headers=headers).status_code == 403
    assert ids(local.get("/chats")) == ["chat-0001"]


def test_a_service_may_keep_no_chats():
    assert open_chats(ServiceConfig(chats=False), None) is None
    with TestClient(build_app(Service({"words": Words()})), base_url="http://localhost") as client:
        reply = client.get("/chats")
        assert (reply.status_code, "in the browser" in reply.text) == (404, True)
