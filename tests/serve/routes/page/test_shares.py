"""A share is what was said, as it was, for whoever has its link, until its owner takes it back."""

import json
import logging

import pytest

from shoestring.serve.chats import shares
from tests.serve.asking import ask, words

MESSAGES = [
    {
        "id": "message1",
        "role": "user",
        "content": "Why?",
        "attachments": [{"name": "a.txt", "text": "secret file"}],
    },
    {
        "id": "message2",
        "parent": "message1",
        "role": "assistant",
        "content": "Because.",
        "reasoning_content": "hm",
        "model": "words",
        "figures": {"thinking_s": 1.5, "cost": "0.1", "currency": "USD"},
        "error": "Insufficient Balance: 0.02 is available",
    },
    {"id": "message3", "parent": "message1", "role": "assistant", "content": "another branch"},
    {"id": "message4", "parent": "message2", "role": "user", "content": "later"},
]
CHAT = {"id": "chat-0001", "title": "Why", "settings": {"system": "secret prompt"}, "messages": MESSAGES}


@pytest.fixture
def ada(site):
    """A person with a chat."""
    browser = site.person()
    assert browser.put("/chats/chat-0001", json=CHAT).status_code == 204
    return browser


def share(browser, leaf="message2"):
    reply = browser.post("/chats/chat-0001/share", json={"leaf": leaf})
    assert reply.status_code == 201, reply.text
    return reply.json()["token"]


def test_a_share_is_one_branch_as_it_was(site, ada):
    token = share(ada)
    ada.put("/chats/chat-0001/messages/message2", json={**MESSAGES[1], "content": "changed"})
    reply = site.browser().get(f"/shares/{token}/content")
    content = reply.json()
    assert content["title"] == "Why"
    assert [message["content"] for message in content["messages"]] == ["Why?", "Because."]
    assert content["messages"][1]["reasoning_content"] == "hm"
    assert content["messages"][0]["attachments"] == [{"name": "a.txt", "text": ""}]
    assert content["messages"][1]["figures"] == {"thinking_s": 1.5}
    for private in ("secret", "Balance", "USD", "ada@", "acc_", "later", "branch"):
        assert private not in reply.text


def test_its_readers_are_asked_for_nothing_and_leave_no_trace(site, ada):
    token = share(ada)
    for path in (f"/shares/{token}/content", f"/share/{token}"):
        reply = site.browser().get(path)
        assert reply.status_code == 200, path
        assert "set-cookie" not in reply.headers
        assert reply.headers["referrer-policy"] == "no-referrer"
        assert "noindex" in reply.headers["x-robots-tag"]
        assert "default-src 'none'" in reply.headers["content-security-policy"]
    assert "script-src 'self'" in reply.headers["content-security-policy"]
    assert reply.headers["content-type"].startswith("text/html")


def test_a_wrong_cookie_does_not_matter(site, ada):
    token = share(ada)
    headers = {"cookie": "__Host-shoestring_session=wrong"}
    assert site.browser().get(f"/shares/{token}/content", headers=headers).status_code == 200


def test_a_share_that_was_taken_back_is_gone(site, ada):
    first, second = share(ada), share(ada, "message4")
    listed = ada.get("/shares").json()["shares"]
    assert {each["token"] for each in listed} == {first, second}
    assert {(each["chat"], each["title"]) for each in listed} == {("chat-0001", "Why")}
    assert ada.delete(f"/shares/{first}").status_code == 204
    assert ada.delete(f"/shares/{first}").status_code == 404
    assert site.browser().get(f"/shares/{first}/content").status_code == 404
    assert site.browser().get(f"/shares/{second}/content").status_code == 200
    ada.delete("/chats/chat-0001")  # the chat takes its shares with it
    assert site.browser().get(f"/shares/{second}/content").status_code == 404
    assert ada.get("/shares").json() == {"shares": []}
    ada.post("/chats/chat-0001/restore")
    assert site.browser().get(f"/shares/{second}/content").status_code == 200
    ada.post("/account/delete", json={"password": "correct horse battery"})
    assert site.browser().get(f"/shares/{second}/content").status_code == 404


def test_nobody_shares_lists_or_takes_back_what_is_not_theirs(site, ada):
    token = share(ada)
    bob = site.person("bob@example.com")
    assert bob.post("/chats/chat-0001/share", json={"leaf": "message2"}).status_code == 404
    assert bob.delete(f"/shares/{token}").status_code == 404
    assert bob.get("/shares").json() == {"shares": []}
    assert site.browser().get("/shares").status_code == 401
    assert site.browser().get(f"/shares/{'a' * 24}/content").status_code == 404
    assert ada.get(f"/shares/{token}/content").status_code == 200


@pytest.mark.parametrize(("leaf", "status"), [("message9", 404), ("short", 400)])
def test_only_what_is_there_is_shared(file_site, leaf, status):
    ada = file_site.person()
    ada.put("/chats/chat-0001", json=CHAT)
    assert ada.post("/chats/chat-0001/share", json={"leaf": leaf}).status_code == status


def test_messages_in_a_circle_are_shared_once(file_site):
    ada = file_site.person()
    circle = [{**MESSAGES[0], "parent": "message2"}, MESSAGES[1]]
    ada.put("/chats/chat-0001", json={**CHAT, "messages": circle})
    content = file_site.browser().get(f"/shares/{share(ada)}/content").json()
    assert [message["id"] for message in content["messages"]] == ["message1", "message2"]


def test_what_is_being_written_is_not_shared_yet(file_site):
    ada = file_site.person()
    words(file_site).gate.clear()
    ask(ada)
    reply = ada.post("/chats/chat-0001/share", json={"leaf": "answer-1"})
    assert (reply.status_code, "when it has ended" in reply.text) == (409, True)
    words(file_site).gate.set()


def test_limits_are_told_in_a_sentence(file_site, monkeypatch):
    ada = file_site.person()
    ada.put("/chats/chat-0001", json=CHAT)
    monkeypatch.setattr(shares, "MAX_SHARES", 1)
    share(ada)
    reply = ada.post("/chats/chat-0001/share", json={"leaf": "message2"})
    assert (reply.status_code, "take one back" in reply.text) == (409, True)
    monkeypatch.setattr(shares, "MAX_BYTES", 100)
    reply = ada.post("/chats/chat-0001/share", json={"leaf": "message2"})
    assert (reply.status_code, "an earlier message" in reply.text) == (413, True)


def test_the_log_does_not_have_the_token(file_site, caplog):
    ada = file_site.person()
    ada.put("/chats/chat-0001", json=CHAT)
    token = share(ada)
    with caplog.at_level(logging.INFO, "shoestring.serve.access"):
        file_site.browser().get(f"/shares/{token}/content")
        file_site.browser().get(f"/share/{token}")
        ada.delete(f"/shares/{token}")
    paths = [json.loads(record.message)["path"] for record in caplog.records]
    assert paths == ["/shares/.../content", "/share/...", "/shares/..."]
    assert token not in caplog.text
