"""Balance and usage, as clients and spreadsheets read them."""

import csv
import io
from datetime import UTC, datetime

import pytest

from shoestring.serve.accounts.keys import KeySettings
from shoestring.serve.ledger.operations import add_funds
from shoestring.serve.ledger.prices import NANOS, decimal
from tests.serve.site import new_site
from tests.serve.words import CHAT, PRICE, PRICES, PROMPT, WORDS

PATH = "/v1/chat/completions"
TODAY = datetime.now(UTC).date().isoformat()


def test_the_balance_has_deepseeks_form(paid):
    client, _, _ = paid
    assert client.get("/user/balance").json() == {
        "is_available": True,
        "balance_infos": [
            {
                "currency": "USD",
                "total_balance": "10.00",
                "granted_balance": "0.00",
                "topped_up_balance": "10.00",
            }
        ],
    }
    client.post(PATH, json=CHAT)
    left = client.get("/user/balance").json()["balance_infos"][0]["total_balance"]
    assert left == decimal(10 * NANOS - PRICE)


def test_a_service_that_charges_nothing_is_available_and_counts_nothing(client):
    assert client.get("/user/balance").json() == {"is_available": True, "balance_infos": []}
    assert client.get("/v1/usage").status_code == 404


@pytest.mark.parametrize("stream", [False, True])
def test_one_requests_charge_is_found_by_its_id(paid, stream):
    client, _, _ = paid
    body = {"model": "words", "prompt": ["a", "b"], "max_tokens": 20, "stream": stream}
    request_id = client.post("/v1/completions", json=body).headers["x-request-id"]
    usage = client.get(f"/v1/usage/{request_id}").json()
    assert usage.pop("time") > 0
    assert usage == {
        "request_id": request_id,
        "model": "words",
        "is_settled": True,
        "prompt_tokens": 2 * PROMPT,
        "cached_tokens": 0,
        "completion_tokens": 2 * WORDS,
        "charge": decimal(2 * PRICE),
        "currency": "USD",
    }
    assert client.get("/v1/usage/req_0").status_code == 404


@pytest.fixture
def site(database_url):
    """A service that costs money, with two accounts that have used it: (site, admin, person, keys)."""
    site = new_site(database_url, prices=PRICES)
    with site.client:
        people, texts = (site.admin(), site.person()), []
        for number, browser in enumerate(people):
            account = browser.get("/account").json()["id"]
            change = site.hosting.accounts.change
            site.do(change, add_funds, f"f{number}", account, "grant", NANOS, 0)
            for _ in range(number + 1):
                texts.append(site.do(site.hosting.accounts.add_key, account, KeySettings()))
                reply = site.client.post(PATH, json=CHAT, headers={"Authorization": f"Bearer {texts[-1]}"})
                assert reply.status_code == 200
        yield site, *people, texts


def test_usage_is_of_ones_own_account_and_admins_see_all(site):
    site, admin, person, texts = site
    row = {"requests": 2, "cached_tokens": 0, "missed_tokens": 2 * PROMPT, "completion_tokens": 2 * WORDS}
    row["charge"] = decimal(2 * PRICE)
    assert person.get("/v1/usage").json() == {"currency": "USD", "data": [{"day": TODAY, **row}]}
    by_key = person.get("/v1/usage?group_by=key&group_by=model").json()["data"]
    assert {(each["key_id"], each["model"], each["requests"]) for each in by_key} == {
        (text.split("-")[1], "words", 1) for text in texts[1:]
    }
    everyone = admin.get("/admin/usage?group_by=account").json()["data"]
    assert sorted(each["requests"] for each in everyone) == [1, 2]
    account = person.get("/account").json()["id"]
    assert admin.get(f"/admin/usage?account_id={account}").json()["data"] == [{"day": TODAY, **row}]
    assert person.get("/admin/usage").status_code == 403
    request_id = site.client.post(PATH, json=CHAT, headers={"Authorization": f"Bearer {texts[0]}"}).headers[
        "x-request-id"
    ]
    assert [who.get(f"/v1/usage/{request_id}").status_code for who in (admin, person)] == [200, 404]


def test_usage_is_a_table_for_spreadsheets(site):
    _, _, person, _ = site
    asked = (person.get("/v1/usage?format=csv"), person.get("/v1/usage", headers={"Accept": "text/csv"}))
    for reply in asked:
        assert reply.headers["content-type"].startswith("text/csv")
        rows = list(csv.DictReader(io.StringIO(reply.text)))
        assert [(row["day"], row["requests"], row["charge"], row["currency"]) for row in rows] == [
            (TODAY, "2", decimal(2 * PRICE), "USD")
        ]
    assert person.get("/v1/usage?from=2020-01-01&to=2020-01-31").json()["data"] == []


@pytest.mark.parametrize(
    "query", ["from=2026-02-01&to=2026-01-01", "from=2020-01-01&to=2026-01-01", "from=x", "group_by=account"]
)
def test_a_wrong_span_is_a_400(paid, query):
    assert paid[0].get(f"/v1/usage?{query}").status_code == 400
