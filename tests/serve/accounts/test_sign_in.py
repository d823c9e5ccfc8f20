"""People get in with what is theirs, and only with that; attackers cannot lock them out."""

import asyncio
import json
import time

import pytest
from sqlalchemy import select

from shoestring.serve.accounts import codes
from shoestring.serve.accounts.passwords import Passwords, check_password
from shoestring.serve.accounts.people import account_by_email
from shoestring.serve.backends.errors import RequestError
from shoestring.serve.storage.tables import metadata
from tests.serve.site import PASSWORD


def sign_in(browser, email="ada@example.com", password=PASSWORD, **fields):
    return browser.post("/auth/sign-in", json={"email": email, "password": password, **fields})


def test_a_person_signs_up_and_in_and_out(site, caplog):
    here = {"has_accounts": True, "person": None, "provider": None, "has_mail": False, "has_chats": True}
    assert site.browser().get("/auth/here").json() == here
    caplog.set_level("INFO", "shoestring.serve.access")
    person = site.person()
    account = person.get("/account").json()
    assert account["email"] == "ada@example.com"
    line = next(line for line in map(json.loads, caplog.messages) if line["path"] == "/auth/sign-in")
    assert [line[name] for name in ("status", "account", "address")] == [200, account["id"], "testclient"]
    assert person.get("/auth/here").json()["person"]["email"] == "ada@example.com"
    cookie = person.cookies.jar
    assert all(each.has_nonstandard_attr("HttpOnly") and each.secure for each in cookie)
    end = person.post("/auth/sign-out")
    assert (end.status_code, end.headers["clear-site-data"]) == (204, '"cache"')
    assert person.get("/account").status_code == 401


def test_an_address_has_one_account(site):
    site.person()
    again = site.browser().post("/auth/sign-up", json={"email": "ADA@example.com ", "password": PASSWORD})
    assert again.status_code == 409


@pytest.mark.parametrize(
    "email", ["ada", "ada@home", "@example.com", "a b@example.com", "a@b@c.de", "x" * 250 + "@a.de"]
)
def test_what_is_no_address_is_refused(site, email):
    assert (
        site.browser().post("/auth/sign-up", json={"email": email, "password": PASSWORD}).status_code == 400
    )


@pytest.mark.parametrize(
    "password",
    ["", "short", "password1", "QWERTYUIOP", "aaaaaaaaaaaa", "adalovelace99", "x" * 257, "my-shoestring"],
)
def test_weak_passwords_are_refused(password):
    with pytest.raises(RequestError) as caught:
        check_password(password, email="adalovelace@example.com")
    assert caught.value.field == "password"


@pytest.mark.parametrize(
    "password", ["x9 kf2 m", "пароль с пробелами", "a" * 60 + "bcde", "密码密码很长很长的"]
)
def test_any_characters_and_64_of_them_are_fine(password):
    check_password(password, email="ada@example.com")


def test_a_hash_costs_what_owasp_recommends():
    passwords = Passwords()
    assert asyncio.run(passwords.hash(PASSWORD)).startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    passwords.close()


def test_wrong_credentials_look_alike_and_run_out(site):
    site.person()
    stranger = site.browser()
    answers = [sign_in(stranger, password=f"wrong {i}") for i in range(10)]
    nobody = sign_in(stranger, "nobody@example.com")
    assert {answer.status_code for answer in answers} == {401}
    assert nobody.json() == answers[0].json()
    refused = sign_in(stranger)
    assert (refused.status_code, "retry-after" in refused.headers) == (429, True)


def test_an_attacker_does_not_lock_the_owner_out(site):
    owner = site.person()
    stranger = site.browser()
    for i in range(12):
        sign_in(stranger, password=f"wrong {i}")
    owner.post("/auth/sign-out")
    assert sign_in(stranger).status_code == 429
    assert sign_in(owner).status_code == 200  # this browser has signed in before


def test_codes_of_an_app_are_asked_and_used_once(site):
    person = site.person()
    secret = person.post("/auth/codes", json={"password": PASSWORD}).json()
    assert secret["uri"].startswith("otpauth://totp/shoestring")
    assert person.post("/auth/codes/confirm", json={"code": "000000"}).status_code in (400, 200)
    code = codes.pyotp.TOTP(secret["secret"]).now()
    recovery = person.post("/auth/codes/confirm", json={"code": code}).json()["recovery_codes"]
    assert {len(text.replace("-", "")) for text in set(recovery)} == {28}
    assert len(set(recovery)) == 10
    stranger = site.browser()
    assert sign_in(stranger).json()["error"]["param"] == "code"
    assert sign_in(stranger, code=code).status_code == 401  # it was used to switch codes on
    assert sign_in(stranger, code=recovery[0].upper()).status_code == 200
    assert sign_in(stranger, code=recovery[0]).status_code == 401
    confirmation = {"password": PASSWORD}
    assert person.request("DELETE", "/auth/codes", json=confirmation).json()["error"]["param"] == "code"
    assert person.post("/auth/codes", json=confirmation).status_code == 401
    confirmation["code"] = recovery[1]
    assert person.request("DELETE", "/auth/codes", json=confirmation).status_code == 204
    assert sign_in(site.browser()).status_code == 200


def test_a_code_counts_for_its_time_and_its_neighbours():
    secret, nonce = codes.Secret(b"s" * 32), codes.new_nonce()
    code = codes.totp(secret, nonce).generate_otp(100)
    steps = {step: codes.code_step(secret, nonce, code, step * 30, None) for step in range(97, 104)}
    assert steps == {97: None, 98: None, 99: 100, 100: 100, 101: 100, 102: None, 103: None}
    assert codes.code_step(secret, nonce, code, 3000, 100) is None


def test_a_new_password_ends_other_sessions(site):
    person, other = site.person(), site.browser()
    assert sign_in(other).status_code == 200
    body = {"password": PASSWORD, "new_password": "another long one"}
    assert person.post("/auth/password", json={**body, "password": "wrong one"}).status_code == 401
    assert person.post("/auth/password", json=body).status_code == 204
    assert (person.get("/account").status_code, other.get("/account").status_code) == (200, 401)
    assert sign_in(other, password="another long one").status_code == 200


def test_every_sign_in_has_a_session_of_its_own_and_ends_the_browsers_last(site):
    person = site.person()
    first = person.cookies["__Host-shoestring_session"]
    assert sign_in(person).status_code == 200
    second = person.cookies["__Host-shoestring_session"]
    thief = site.browser()
    for token, status in ((first, 401), (second, 200)):
        assert (
            thief.get("/account", headers={"cookie": f"__Host-shoestring_session={token}"}).status_code
            == status
        )
        assert thief.get("/account", headers={"cookie": f"shoestring_session={token}"}).status_code == 401
    body = {"password": PASSWORD, "new_password": "another long one"}
    assert person.post("/auth/password", json=body).status_code == 204
    assert person.cookies["__Host-shoestring_session"] not in (first, second)


def test_sessions_end_by_themselves(site, monkeypatch):
    person = site.person()
    authenticator = site.hosting.accounts.authenticator
    now = authenticator._clock()
    for days, status in ((6, 200), (12, 200), (18, 200), (24, 200), (29, 200), (31, 401)):
        monkeypatch.setattr(authenticator, "_clock", lambda days=days: now + days * 86_400)
        assert person.get("/account").status_code == status, days
    other = site.person("bob@example.com")
    monkeypatch.setattr(authenticator, "_clock", lambda: now + 7.5 * 86_400)
    assert other.get("/account").status_code == 401  # not seen for a week


def test_sessions_are_listed_and_ended_one_by_one(site):
    person, other, stranger = site.person(), site.browser(), site.person("bob@example.com")
    assert sign_in(other).status_code == 200
    listed = person.get("/account/sessions").json()["data"]
    assert sorted(each["is_present"] for each in listed) == [False, True]
    (path,) = (f"/account/sessions/{each['id']}" for each in listed if not each["is_present"])
    assert stranger.delete(path).status_code == 404
    assert person.delete(path).status_code == 204
    assert (person.get("/account").status_code, other.get("/account").status_code) == (200, 401)
    assert person.delete("/account/sessions/%").status_code == 400
    for _ in range(2):
        assert sign_in(site.browser()).status_code == 200
    assert person.delete("/account/sessions?keep_present=true").status_code == 204
    assert [each["is_present"] for each in person.get("/account/sessions").json()["data"]] == [True]
    assert stranger.get("/account").status_code == 200
    assert person.delete("/account/sessions").status_code == 204
    assert person.get("/account").status_code == 401


def test_the_owner_hears_of_every_change_to_the_way_in(mail_site):
    browser = mail_site.browser()
    browser.post("/auth/sign-up", json={"email": "ada@example.com", "password": PASSWORD})
    token = mail_site.mails[-1][2].strip().rpartition("/")[2]
    browser.post("/auth/check-email", json={"link": token})
    assert sign_in(browser).status_code == 200
    browser.post("/auth/password", json={"password": PASSWORD, "new_password": "another long one"})
    confirmation = {"password": "another long one"}
    secret = browser.post("/auth/codes", json=confirmation).json()["secret"]
    code = codes.pyotp.TOTP(secret).now()
    recovery = browser.post("/auth/codes/confirm", json={"code": code}).json()["recovery_codes"]
    browser.request("DELETE", "/auth/codes", json={**confirmation, "code": recovery[0]})
    told = [text for address, subject, text in mail_site.mails if subject == "Your account"]
    assert ["password" in text.splitlines()[0] for text in told] == [True, False, False]


def test_a_reset_password_does_not_replace_a_code(site):
    person = site.person()
    secret = person.post("/auth/codes", json={"password": PASSWORD}).json()["secret"]
    person.post("/auth/codes/confirm", json={"code": codes.pyotp.TOTP(secret).now()})
    accounts = site.hosting.accounts
    account = site.do(accounts.read, account_by_email, "ada@example.com")
    body = {"link": site.link("reset_password", account=account), "password": "another long one"}
    assert person.post("/auth/reset-password", json=body).status_code == 204
    assert sign_in(person, password="another long one").json()["error"]["param"] == "code"


def test_links_confirm_addresses_and_reset_passwords_once(mail_site):
    browser = mail_site.browser()
    browser.post("/auth/sign-up", json={"email": "ada@example.com", "password": PASSWORD})
    assert sign_in(browser).status_code == 403
    token = mail_site.mails[-1][2].strip().rpartition("/")[2]
    assert browser.post("/auth/check-email", json={"link": token}).status_code == 204
    assert browser.post("/auth/check-email", json={"link": token}).status_code == 403
    assert sign_in(browser).status_code == 200
    same = [browser.post("/auth/forgotten", json={"email": f"{name}@example.com"}) for name in ("ada", "bob")]
    assert same[0].json() == same[1].json()
    assert [mail[0] for mail in mail_site.mails] == ["ada@example.com"] * 3
    token = mail_site.mails[-1][2].strip().rpartition("/")[2]
    body = {"link": token, "password": "another long one"}
    assert browser.post("/auth/reset-password", json=body).status_code == 204
    assert browser.post("/auth/reset-password", json=body).status_code == 403
    assert browser.get("/account").status_code == 401
    assert sign_in(browser, password="another long one").status_code == 200


def test_the_first_admin_comes_by_a_link(site):
    admin = site.admin()
    assert admin.get("/account").json()["role"] == "admin"
    assert site.do(site.hosting.accounts.first_admin_link) is None
    assert site.person("bob@example.com").get("/account").json()["role"] == "user"


def test_pages_of_other_sites_cannot_use_a_session(site):
    person = site.person()
    for headers in ({"sec-fetch-site": "cross-site"}, {"origin": "https://evil.example"}):
        assert person.post("/auth/sign-out", headers=headers).status_code == 403
    assert person.post("/auth/sign-out", headers={"origin": "https://testserver"}).status_code == 204
    # a form can send this, without a preflight
    body = f'{{"email": "ada@example.com", "password": "{PASSWORD}"}}'
    plain = person.post("/auth/sign-in", content=body, headers={"content-type": "text/plain"})
    assert (plain.status_code, list(plain.cookies)) == (400, [])


def test_one_may_take_ones_data_and_leave(site):
    person = site.person()
    key = person.post("/account/keys", json={"name": "laptop"}).json()["key"]
    data = person.get("/account/export").json()
    assert data["accounts"][0]["email"] == "ada@example.com"
    assert data["api_keys"][0]["name"] == "laptop"
    assert "digest" not in str(data)
    assert "argon2" not in str(data)
    assert person.post("/account/delete", json={"password": "wrong one"}).status_code == 401
    assert person.post("/account/delete", json={"password": PASSWORD}).status_code == 204
    assert sign_in(person).status_code == 401
    headers = {"Authorization": f"Bearer {key}"}
    assert site.browser().get("/v1/models", headers=headers).status_code == 401

    def rows(connection):
        return [str(row) for table in metadata.sorted_tables for row in connection.execute(select(table))]

    assert "ada@example.com" not in str(site.do(site.hosting.accounts.database.read, rows))


def test_what_has_expired_is_deleted(site):
    site.person()
    site.link("invite")
    accounts = site.hosting.accounts
    accounts.sign_in._clock = lambda: time.time() + 365 * 86_400
    assert site.do(accounts.forget_old) == 4  # session, browser, invitation, the first admin
