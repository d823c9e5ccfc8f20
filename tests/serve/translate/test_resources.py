import pytest

from shoestring.serve.backends.errors import RequestError
from shoestring.serve.translate import resources
from shoestring.serve.translate.resources import add, change, find, find_all, remove


def test_each_account_has_its_own(connection):
    row = add(connection, "ada", "glossary", {"name": "ä"})
    assert find(connection, "ada", "glossary", row["id"]) == row
    assert find_all(connection, "ada", "glossary") == [row]
    assert find_all(connection, "ada", "style") == find_all(connection, "bob", "glossary") == []
    for account, kind in (("bob", "glossary"), ("ada", "style")):
        with pytest.raises(RequestError, match="no such"):
            change(connection, account, kind, row["id"], lambda fields: None)
        with pytest.raises(RequestError, match="no such"):
            remove(connection, account, kind, row["id"])
    renamed = change(connection, "ada", "glossary", row["id"], lambda fields: fields.update(name="b"))
    assert renamed["name"] == "b"
    remove(connection, "ada", "glossary", row["id"])
    with pytest.raises(RequestError, match="Invalid glossary id"):
        find(connection, "ada", "glossary", "x")


def test_there_is_a_limit(connection, monkeypatch):
    monkeypatch.setattr(resources, "MAX_RESOURCES", 1)
    row = add(connection, "ada", "style", {"a": 1})
    with pytest.raises(RequestError, match="at most 1 "):
        add(connection, "ada", "glossary", {})
    monkeypatch.setattr(resources, "MAX_BYTES", 20)
    with pytest.raises(RequestError, match="delete some"):
        change(connection, "ada", "style", row["id"], lambda fields: fields.update(a="x" * 30))
    assert add(connection, "bob", "glossary", {})["id"]
