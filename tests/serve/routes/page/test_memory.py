"""The memory is off until its owner switches it on; only the owner sees, fills and erases it."""

import pytest

from shoestring.serve.chats import memory


def test_facts_are_kept_when_it_is_on_and_erased_when_asked(site):
    ada = site.person()
    assert ada.get("/memory").json() == {"is_on": False, "facts": []}
    reply = ada.post("/memory/facts", json={"text": "I live in Köln"})
    assert (reply.status_code, "switch it on" in reply.text) == (409, True)
    assert ada.put("/memory", json={"is_on": True}).status_code == 204
    first = ada.post("/memory/facts", json={"text": "I live in Köln"})
    assert first.status_code == 201
    second = ada.post("/memory/facts", json={"text": "half \0"}).json()
    assert second["text"] == "half \ufffd"
    assert ada.get("/memory").json() == {"is_on": True, "facts": [first.json(), second]}
    assert ada.delete(f"/memory/facts/{second['id']}").status_code == 204
    assert ada.delete(f"/memory/facts/{second['id']}").status_code == 404
    ada.put("/memory", json={"is_on": False})
    assert ada.get("/memory").json() == {"is_on": False, "facts": [first.json()]}
    assert ada.delete("/memory").status_code == 204
    assert ada.get("/memory").json() == {"is_on": False, "facts": []}


def test_it_is_nobody_elses(site):
    ada, bob = site.person(), site.person("bob@example.com")
    ada.put("/memory", json={"is_on": True})
    fact = ada.post("/memory/facts", json={"text": "mine"}).json()
    assert bob.get("/memory").json() == {"is_on": False, "facts": []}
    assert bob.delete(f"/memory/facts/{fact['id']}").status_code == 404
    assert bob.delete("/memory").status_code == 204
    assert site.browser().get("/memory").status_code == 401
    assert ada.get("/memory").json()["facts"] == [fact]
    assert ada.get("/account/export").json()["memory_facts"][0]["text"] == "mine"
    assert ada.post("/account/delete", json={"password": "correct horse battery"}).status_code == 204
    tables = (memory.memory, memory.memory_facts)

    def rows(connection):
        return [connection.execute(table.select()).all() for table in tables]

    assert site.do(site.hosting.accounts.database.read, rows) == [[], []]


@pytest.mark.parametrize("text", ["", "a" * 1001, 3])
def test_a_fact_is_a_short_text(file_site, text):
    ada = file_site.person()
    ada.put("/memory", json={"is_on": True})
    assert ada.post("/memory/facts", json={"text": text}).status_code == 400


def test_it_has_an_end(file_site, monkeypatch):
    monkeypatch.setattr(memory, "MAX_FACTS", 1)
    ada = file_site.person()
    ada.put("/memory", json={"is_on": True})
    assert ada.post("/memory/facts", json={"text": "one"}).status_code == 201
    reply = ada.post("/memory/facts", json={"text": "two"})
    assert (reply.status_code, "erase one" in reply.text) == (409, True)
