"""Stripe's events: signed, once each, in the right currency; refunds go as far as the money is there."""

import hashlib
import hmac
import json
import logging
import time

import pytest

from shoestring.errors import ConfigError
from shoestring.serve.accounts.keys import KeySettings
from shoestring.serve.accounts.people import add_account
from shoestring.serve.ledger.audit import audit
from shoestring.serve.ledger.operations import balance
from shoestring.serve.ledger.prices import NANOS
from shoestring.serve.ledger.stripe import Payments, StripeConfig, open_payments, read_event
from tests.serve.site import PASSWORD, new_site
from tests.serve.words import CHAT, PRICE, PRICES

SECRET = "whsec_canary"


@pytest.fixture
def shop(database_url):
    """A service that takes payments, and the account of a person: (site, account id)."""
    site = new_site(database_url, prices=PRICES)
    site.hosting.payments = Payments(SECRET, "https://buy.example/x")
    with site.client:
        yield site, site.person().get("/account").json()["id"]


def event(kind, **fields):
    return json.dumps(
        {"id": "evt_1", "type": kind, "data": {"object": {"currency": "usd", **fields}}}
    ).encode()


def session(account_id, **fields):
    fields = {
        "id": "cs_1",
        "payment_intent": "pi_1",
        "payment_status": "paid",
        "amount_total": 1250,
        **fields,
    }
    return event("checkout.session.completed", metadata={"account_id": account_id}, **fields)


def refund(total, **fields):
    return event("charge.refunded", id="ch_1", payment_intent="pi_1", amount_refunded=total, **fields)


def signed(body, secret=SECRET, time_s=None):
    stamp = str(int(time.time()) if time_s is None else time_s)
    digest = hmac.new(secret.encode(), stamp.encode() + b"." + body, hashlib.sha256).hexdigest()
    return f"t={stamp},v1={'0' * 64},v1={digest},v0=x"


def send(site, body, header=None):
    headers = {"Stripe-Signature": signed(body) if header is None else header}
    return site.client.post("/webhooks/stripe", content=body, headers=headers)


def money(site, account_id):
    assert site.do(site.hosting.accounts.read, audit) == []
    return site.do(site.hosting.accounts.read, balance, account_id).topped_up


def test_a_payment_is_added_once_however_often_stripe_tells_of_it(shop):
    site, account = shop
    intent = event(
        "payment_intent.succeeded", id="pi_1", amount_received=1250, metadata={"account_id": account}
    )
    for body in (session(account), session(account), intent):
        assert (send(site, body).status_code, send(site, body).json()) == (200, {"status": "ok"})
        assert money(site, account) == 12_500_000_000
    send(site, session(account, payment_intent=None, id="cs_test_" + "x" * 70, amount_total=1))
    assert money(site, account) == 12_510_000_000


@pytest.mark.parametrize(
    "header",
    [
        *("", "t=1", "t=x,v1=y", "v1=" + "0" * 64, "t=,v1=", "\u00e9".encode("latin-1"), "t=٣,v1=x".encode()),
        lambda: signed(b"{}", SECRET),
        lambda: signed(session("a"), "whsec_other"),
        lambda: signed(session("a"), SECRET, int(time.time()) - 400),
        lambda: signed(session("a"), SECRET, int(time.time()) + 400),
    ],
)
def test_what_is_not_signed_now_is_refused(shop, header):
    site, _ = shop
    reply = send(site, session("a"), header() if callable(header) else header)
    assert reply.status_code == 400
    assert "signature" in reply.json()["error"]["message"]


def test_wrong_events_are_a_400_that_stripe_shows_and_others_are_taken(shop):
    site, account = shop
    for body, words in (
        (session(account, currency="eur"), "the price list is in USD, not in EUR"),
        (session("acc_0"), "there is no account"),
        (session(account, amount_total=None), "no amount"),
        (session(account, amount_total=10**10), "no amount"),
        (b"[]", "no event"),
        (b"{", "no event"),
    ):
        reply = send(site, body)
        assert (reply.status_code, words in reply.json()["error"]["message"]) == (400, True), reply.text
    others = (
        event("invoice.paid", id="in_1"),
        event("payment_intent.succeeded", id="pi_9", amount_received=5, metadata={}),
        session(account, payment_status="unpaid"),
        event("charge.refunded", id="ch_9", payment_intent="pi_9", amount_refunded=5),
    )
    assert [send(site, body).status_code for body in others] == [200] * 4
    assert money(site, account) == 0


def test_a_refund_takes_back_what_is_there_and_the_log_says_what_is_not(shop, caplog):
    site, account = shop
    send(site, session(account, amount_total=3))
    assert money(site, account) == 30_000_000
    for total, left in ((1, 20_000_000), (1, 20_000_000), (2, 10_000_000)):
        assert send(site, refund(total)).status_code == 200
        assert money(site, account) == left
    key = site.do(site.hosting.accounts.add_key, account, KeySettings())
    reply = site.client.post("/v1/chat/completions", json=CHAT, headers={"Authorization": f"Bearer {key}"})
    assert reply.status_code == 200
    with caplog.at_level(logging.DEBUG):
        assert [send(site, refund(3)).status_code for _ in range(2)] == [200, 200]
    assert money(site, account) == 0
    lines = [record.getMessage() for record in caplog.records if "had spent" in record.getMessage()]
    assert lines == [f"stripe:pi_1 was refunded, but {account} had spent {PRICE / NANOS:.6f} of it"]
    assert SECRET not in caplog.text


def test_a_service_without_a_secret_takes_no_payments(shop, client):
    site, account = shop
    site.hosting.payments = None
    assert send(site, session(account)).status_code == 404
    assert client.post("/webhooks/stripe", content=b"{}").status_code == 404


def test_the_secret_comes_from_a_file_or_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("SHOESTRING_STRIPE_SECRET", "from the environment")
    assert open_payments(StripeConfig()).secret == "from the environment"
    (tmp_path / "secret").write_text("from a file\n")
    assert open_payments(StripeConfig(secret_file=str(tmp_path / "secret"))).secret == "from a file"
    monkeypatch.delenv("SHOESTRING_STRIPE_SECRET")
    assert open_payments(StripeConfig()) is None
    with pytest.raises(ConfigError, match=r"stripe.secret_file"):
        open_payments(StripeConfig(secret_file=str(tmp_path / "none")))
    for config, words in (
        (StripeConfig(link="http://x"), "https"),
        (StripeConfig(link="https://x"), "secret"),
    ):
        with pytest.raises(ConfigError, match=words):
            open_payments(config)


def test_the_accounts_page_leads_to_where_money_is_paid_in(shop):
    site, account = shop
    ada = site.browser()
    ada.post("/auth/sign-in", json={"email": "ada@example.com", "password": PASSWORD})
    link = ada.get("/account").json()["payment_link"]
    assert link == f"https://buy.example/x?client_reference_id={account}"
    paid = {"id": "cs_2", "payment_status": "paid", "amount_total": 300, "metadata": {}}
    for reference, amount in (("order 7", 0), (account, 3_000_000_000)):
        body = event("checkout.session.completed", client_reference_id=reference, **paid)
        assert send(site, body).status_code == 200
        assert money(site, account) == amount
    assert Payments(SECRET, "https://x/?a=1").link_of("acc_1") == "https://x/?a=1&client_reference_id=acc_1"
    assert Payments(SECRET).link_of("acc_1") is None


@pytest.mark.parametrize(("currency", "amount"), [("JPY", 1250), ("USD", "12.50"), ("KWD", "1.250")])
def test_amounts_are_in_the_smallest_unit_of_their_currency(connection, currency, amount):
    account = add_account(connection, "a@b.c", None, "user", 0)
    booking = read_event(session(account.id, currency=currency.lower()), currency)
    booking(connection, 0)
    assert balance(connection, account.id).topped_up == int(float(amount) * NANOS)
