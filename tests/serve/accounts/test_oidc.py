"""Sign-in by another service: the flow, and every way in which an answer can be wrong."""

from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest
from joserfc import jwt
from joserfc.jwk import RSAKey

from shoestring.errors import ConfigError
from shoestring.serve.accounts.oidc import OidcConfig, Provider

ISSUER = "https://id.example"
KEY = RSAKey.generate_key(2048, {"kid": "one"})
CONFIG = OidcConfig(issuer=ISSUER, client_id="shoestring")


class Somebody:
    """A provider for one person."""

    def __init__(self):
        self.claims, self.key, self.status = (
            {"sub": "ada", "email": "ada@example.com", "email_verified": True},
            KEY,
            200,
        )
        self.nonce, self.requests = "", []

    def answer(self, request):
        self.requests.append(request)
        if request.url.path.startswith("/.well-known"):
            places = {"authorization_endpoint": "/authorize", "token_endpoint": "/token", "jwks_uri": "/keys"}
            return httpx2.Response(200, json={"issuer": ISSUER, **{k: ISSUER + v for k, v in places.items()}})
        if request.url.path == "/keys":
            return httpx2.Response(200, json={"keys": [KEY.as_dict(private=False)]})
        claims = {
            "iss": ISSUER,
            "aud": "shoestring",
            "exp": 4_000_000_000,
            "nonce": self.nonce,
            **self.claims,
        }
        token = jwt.encode({"alg": "RS256", "kid": "one"}, claims, self.key)
        return httpx2.Response(self.status, json={"id_token": token})


@pytest.fixture
def somebody(mail_site):
    person = Somebody()
    transport = httpx2.MockTransport(person.answer)
    mail_site.hosting.accounts.provider = Provider(
        CONFIG, "https://testserver/auth/oidc/callback", transport=transport
    )
    return person


def begin(browser, somebody):
    """The state of an attempt that has begun."""
    page = urlsplit(browser.get("/auth/oidc", follow_redirects=False).headers["location"])
    fields = {name: values[0] for name, values in parse_qs(page.query).items()}
    assert (page.path, fields["client_id"], fields["code_challenge_method"]) == (
        "/authorize",
        "shoestring",
        "S256",
    )
    somebody.nonce = fields["nonce"]
    return fields["state"]


def come_back(browser, state, code="code"):
    return browser.get("/auth/oidc/callback", params={"code": code, "state": state}, follow_redirects=False)


def test_a_person_signs_in_by_another_service_and_is_the_same_the_next_time(mail_site, somebody):
    ids = set()
    for _ in range(2):
        browser = mail_site.browser()
        assert come_back(browser, begin(browser, somebody)).status_code == 303
        account = browser.get("/account").json()
        assert (account["email"], account["is_email_checked"]) == ("ada@example.com", True)
        assert not account["has_password"]
        assert browser.get("/auth/here").json()["provider"] == "id.example"
        ids.add(account["id"])
    assert len(ids) == 1
    body = somebody.requests[-1].content.decode()
    assert "code_verifier=" in body


@pytest.mark.parametrize(
    "claims",
    [
        {"iss": "https://evil.example"},
        {"aud": "another"},
        {"exp": 1},
        {"nonce": "another"},
        {"sub": None},
        {"email_verified": False},
    ],
)
def test_a_wrong_token_lets_nobody_in(mail_site, somebody, claims):
    browser = mail_site.browser()
    state = begin(browser, somebody)
    somebody.claims |= claims
    assert come_back(browser, state).status_code == 403
    assert browser.get("/account").status_code == 401


def test_a_wrong_signature_state_or_cookie_lets_nobody_in(mail_site, somebody):
    browser = mail_site.browser()
    state = begin(browser, somebody)
    assert come_back(browser, "another").status_code == 403
    assert come_back(mail_site.browser(), state).status_code == 403
    somebody.key = RSAKey.generate_key(2048, {"kid": "one"})
    assert come_back(browser, state).status_code == 403
    somebody.status = 500
    assert come_back(browser, state).status_code == 503


def test_an_address_with_an_account_is_not_taken_over(mail_site, somebody):
    mail_site.browser().post(
        "/auth/sign-up", json={"email": "ada@example.com", "password": "quite a long one"}
    )
    browser = mail_site.browser()
    assert come_back(browser, begin(browser, somebody)).status_code == 409
    browser.headers["accept"] = "text/html"
    assert come_back(browser, begin(browser, somebody)).headers["location"] == "/#/sign-in/known"
    assert browser.get("/account").status_code == 401


def test_somebody_new_passes_the_gate(mail_site, somebody):
    gate = mail_site.hosting.gate
    for state, status in (("closed", 503), ("invite", 403), ("proof_of_work", 303)):
        mail_site.do(gate.pin, type(gate.now.state)(state), "a test", "operator")
        browser = mail_site.browser()
        assert come_back(browser, begin(browser, somebody)).status_code == status


def test_without_a_provider_there_is_no_such_way(mail_site):
    assert mail_site.browser().get("/auth/oidc", follow_redirects=False).status_code == 404
    for config in (OidcConfig(issuer="http://id.example", client_id="x"), OidcConfig(issuer=ISSUER)):
        with pytest.raises(ConfigError, match="https://"):
            Provider(config, "x")
