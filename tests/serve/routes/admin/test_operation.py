"""Admins see models with their servers, and read prices anew."""

import pytest

from shoestring.serve.backends.address import Address
from shoestring.serve.backends.backend import ModelCard
from shoestring.serve.backends.pool import PoolBackend
from shoestring.serve.backends.upstream import Upstream

LIST = """
currency = "EUR"
[models."*"]
cache_hit = "0.07"
cache_miss = "0.27"
output = "1.1"
hours = [{ from = "16:30", to = "00:30", factor = "0.5" }]
"""


@pytest.fixture
def admin(site):
    return site.admin()


def test_prices_are_read_anew_and_wrong_ones_change_nothing(site, admin, tmp_path):
    before = admin.get("/admin/prices").json()
    assert before == {"currency": "USD", "source": None, "models": {}}
    assert admin.post("/admin/prices").json() == before
    file = tmp_path / "prices.toml"
    site.hosting.price_source = str(file)
    refused = admin.post("/admin/prices")
    assert (refused.status_code, "the old prices stay" in refused.json()["error"]["message"]) == (400, True)
    file.write_text(LIST)
    price = {"cache_hit": "0.07", "cache_miss": "0.27", "output": "1.10"}
    hours = {"start": "16:30", "end": "00:30", "factor": "0.5"}
    answer = admin.post("/admin/prices").json()
    assert answer["models"]["*"].pop("hours")[0].items() >= hours.items()
    assert answer == {"currency": "EUR", "source": str(file), "models": {"*": price}}
    file.write_text("models = 3")
    assert admin.post("/admin/prices").status_code == 400
    assert admin.get("/admin/prices").json()["currency"] == "EUR"
    terms = site.person().get("/user/terms").json()
    assert (terms["currency"], terms["prices"]["words"]["output"]) == ("EUR", "1.10")


def test_models_are_listed_with_their_servers(site, admin):
    service = site.app.state.service
    card = ModelCard(id="far", max_model_len=4096, created_s=0)
    up, down = (
        Upstream(Address(url=name, weight=2.0), {"far": card} if is_up else {})
        for name, is_up in (("http://10.0.0.1/v1", True), ("http://10.0.0.2/v1", False))
    )
    service.backends["far"] = PoolBackend("far", [up, down])
    service.aliases["deepseek-chat"] = "far"
    try:
        words, far = admin.get("/admin/models").json()["data"]
    finally:
        del service.backends["far"], service.aliases["deepseek-chat"]
    assert (words["name"], words["is_healthy"], words["is_loaded"], words["servers"]) == (
        "words",
        True,
        None,
        [],
    )
    assert (far["aliases"], far["max_model_len"], far["running"]) == (["deepseek-chat"], 4096, 0)
    assert [(server["is_up"], server["open_requests"]) for server in far["servers"]] == [
        (True, 0),
        (False, 0),
    ]


def test_the_ledger_is_right(admin):
    assert admin.get("/admin/audit").json() == {"faults": []}


def test_what_admins_did_is_kept(site, admin):
    root = admin.get("/account").json()["id"]
    ada = site.person().get("/account").json()["id"]
    admin.patch(f"/admin/accounts/{ada}", json={"day_cap": "1.5"})
    admin.post(f"/admin/accounts/{ada}/credit", json={"amount": "3", "note": "a prize"})
    admin.post(f"/admin/accounts/{ada}/credit", json={"amount": "-9"})
    admin.delete(f"/admin/accounts/{ada}/sessions")
    link = admin.post("/admin/links", json={"purpose": "invite"}).json()["link"]
    admin.post("/admin/gate", json={"state": "invite", "reason": "few machines"})
    number = admin.post("/admin/incidents", json={"text": "Slow"}).json()["number"]
    admin.post("/admin/incidents", json={"text": "Quick", "number": number, "is_end": True})
    key = admin.post(f"/admin/accounts/{ada}/keys", json={}).json()["key"]
    rows = admin.get("/admin/log").json()["data"]
    assert [(row["action"], row["account_id"], row["detail"]) for row in reversed(rows)] == [
        ("change_account", ada, "day_cap=1.50"),
        ("credit", ada, "grant 3.00 a prize"),
        ("end_sessions", ada, ""),
        ("create_link", None, "invite"),
        ("pin_gate", None, "invite: few machines"),
        ("begin_incident", None, f"{number}: Slow"),
        ("end_incident", None, f"{number}: Quick"),
        ("create_key", ada, f"{key.split('-')[1]} scope=inference"),
    ]
    assert {row["actor"] for row in rows} == {root}
    assert {row["actor_email"] for row in rows} == {"root@example.com"}
    assert link.rpartition("/")[2] not in str(rows)
    assert key not in str(rows)
    pages = [admin.get(f"/admin/log?limit=3&before={before}").json()["data"] for before in (rows[0]["id"], 1)]
    assert pages == [rows[1:4], []]
