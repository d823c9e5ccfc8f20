"""API keys: shown once, kept as digests, with scopes, expiry and revocation; wrong ones cost nothing."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select

from shoestring.errors import ConfigError
from shoestring.serve.accounts import authenticator
from shoestring.serve.accounts.people import change_account
from shoestring.serve.accounts.secret import Secret, read_secret
from shoestring.serve.accounts.tokens import new_key, read_key
from shoestring.serve.storage.database import DatabaseGone
from shoestring.serve.storage.tables import metadata

SECRET = Secret(b"s" * 32)
CHAT = {"model": "words", "messages": [{"role": "user", "content": "x"}]}


def bearer(key):
    return {"Authorization": f"Bearer {key}"}


def test_a_key_works_in_both_places_and_is_nowhere_in_the_database(site, caplog):
    made = site.person().post("/account/keys", json={"name": "laptop", "day_cap": "1.50"}).json()
    browser = site.browser()
    for headers in (bearer(made["key"]), {"x-api-key": made["key"]}):
        assert browser.post("/v1/chat/completions", json=CHAT, headers=headers).status_code == 200

    def rows(connection):
        return [str(row) for table in metadata.sorted_tables for row in connection.execute(select(table))]

    kept = str(site.do(site.hosting.accounts.database.read, rows))
    assert made["id"] in kept
    assert made["key"].split("-", 2)[2][:32] not in kept
    assert made["key"] not in caplog.text


def test_keys_are_listed_and_revoked(site):
    person = site.person()
    made = person.post("/account/keys", json={"name": "a", "day_cap": 1.5, "expires_in_days": 1}).json()
    (listed,) = person.get("/account/keys").json()["data"]
    assert (listed["name"], listed["day_cap"], listed["revoked_s"]) == ("a", "1.50", None)
    assert site.browser().get("/v1/models", headers=bearer(made["key"])).status_code == 200
    assert person.delete(f"/account/keys/{made['id']}").status_code == 204
    assert site.browser().get("/v1/models", headers=bearer(made["key"])).status_code == 401
    assert person.delete(f"/account/keys/{made['id']}").status_code == 404


def test_a_key_has_its_scope_and_no_more(site):
    person = site.person()
    browser = site.browser()
    inference = person.post("/account/keys", json={}).json()["key"]
    account = person.post("/account/keys", json={"scope": "account"}).json()["key"]
    assert browser.get("/account", headers=bearer(inference)).status_code == 403
    assert browser.get("/account", headers=bearer(account)).status_code == 200
    assert person.post("/account/keys", json={"scope": "admin"}).status_code == 403
    assert site.admin().post("/account/keys", json={"scope": "admin"}).status_code == 201


def test_an_expired_key_and_a_disabled_account_are_refused(site, monkeypatch):
    person = site.person()
    made = person.post("/account/keys", json={"expires_in_days": 1}).json()["key"]
    account_id = person.get("/account").json()["id"]
    accounts = site.hosting.accounts
    now = accounts.authenticator._clock
    monkeypatch.setattr(accounts.authenticator, "_clock", lambda: now() + 86_401)
    assert site.browser().get("/v1/models", headers=bearer(made)).status_code == 401
    monkeypatch.undo()
    site.do(lambda: accounts.change(change_account, account_id, disabled_s=1))
    assert site.browser().get("/v1/models", headers=bearer(made)).status_code == 403
    assert person.get("/account").status_code == 403


def test_without_a_key_or_with_a_wrong_one_nothing_is_read(site, monkeypatch):
    def fail(*_):
        raise AssertionError("the database was asked")

    monkeypatch.setattr(site.hosting.accounts.database, "read", fail)
    for headers in ({}, bearer("sk-wrong"), bearer(new_key().text(Secret(b"t" * 32))), {"x-api-key": ""}):
        answer = site.browser().post("/v1/chat/completions", json=CHAT, headers=headers)
        assert answer.status_code == 401
        assert "Authentication Fails" in answer.json()["error"]["message"]


def test_a_database_that_is_gone_is_a_503_and_never_a_401(site, monkeypatch):
    made = site.person().post("/account/keys", json={}).json()["key"]

    async def gone(work):
        raise DatabaseGone

    monkeypatch.setattr(site.hosting.accounts.database, "read", gone)
    answer = site.browser().get("/v1/models", headers=bearer(made))
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")


def test_the_operators_key_is_an_admins(site):
    key = site.hosting.accounts.authenticator.operator_key
    assert site.browser().get("/metrics", headers=bearer(key)).status_code == 200


def test_known_keys_are_few_and_forgotten(site, monkeypatch):
    monkeypatch.setattr(authenticator, "MAX_KNOWN", 2)
    person = site.person()
    for _ in range(4):
        key = person.post("/account/keys", json={}).json()["key"]
        assert site.browser().get("/v1/models", headers=bearer(key)).status_code == 200
    assert len(site.hosting.accounts.authenticator._callers) <= 2


@given(st.text(string.printable, max_size=80))
def test_only_keys_of_this_service_are_read(text):
    key = new_key()
    assert read_key(key.text(SECRET), SECRET) == key
    assert read_key(text, SECRET) is None
    assert read_key(key.text(SECRET)[:-1] + "x", SECRET) is None


def test_the_secret_is_made_once_for_its_owner_alone(tmp_path):
    path = tmp_path / "secret"
    made = read_secret(path)
    assert read_secret(path).digest("a", "b") == made.digest("a", "b") != made.digest("c", "b")
    assert path.stat().st_mode & 0o777 == 0o600
    assert "Secret(...)" in repr(made)
    path.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        read_secret(path)
    path.chmod(0o600)
    path.write_bytes(b"short")
    with pytest.raises(ConfigError, match="5 bytes"):
        read_secret(path)
