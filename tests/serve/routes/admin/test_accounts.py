"""Admins manage people and their money; nobody else does."""

import pytest

from shoestring.serve.app import ROUTERS
from shoestring.serve.audience import Audience, audiences
from tests.serve.site import PASSWORD

ADMIN_ROUTES = [route for route, who in audiences(ROUTERS).items() if who is Audience.ADMIN]


@pytest.fixture
def admin(site):
    return site.admin()


def account_of(site, email="ada@example.com"):
    return site.person(email).get("/account").json()["id"]


@pytest.mark.parametrize(("method", "path"), ADMIN_ROUTES)
def test_nobody_but_an_admin_gets_in(mail_site, method, path):
    path = path.replace("{account_id}", "x").replace("{link_id}", "0" * 16)
    assert mail_site.browser().request(method, path).status_code == 401
    key = mail_site.hosting.accounts.authenticator.operator_key[:-1] + "x"
    headers = {"Authorization": f"Bearer {key}"}
    assert mail_site.browser().request(method, path, headers=headers).status_code == 401


def test_a_user_is_no_admin(site):
    assert site.person().get("/admin/accounts").status_code == 403


def test_an_account_is_made_and_its_owner_sets_a_password(site, admin):
    made = admin.post("/admin/accounts", json={"email": "Bob@example.com", "role": "user"}).json()
    token = made["link"].rpartition("/")[2]
    browser = site.browser()
    body = {"email": "bob@example.com", "password": "quite a long one"}
    assert browser.post("/auth/sign-in", json=body).status_code == 401
    reset = {"link": token, "password": body["password"]}
    assert browser.post("/auth/reset-password", json=reset).status_code == 204
    assert browser.post("/auth/sign-in", json=body).status_code == 200


def test_accounts_are_found_page_by_page(site, admin):
    for name in ("ada", "bob", "carl_", "carlx"):
        site.do(site.hosting.accounts.invite, f"{name}@example.com", "user")

    def found(**query):
        answer = admin.get("/admin/accounts", params=query).json()
        return answer["total"], [row["email"].partition("@")[0] for row in answer["data"]]

    assert (found()[0], sorted(found()[1])) == (5, ["ada", "bob", "carl_", "carlx", "root"])
    assert found(search=" Bob@EXAMPLE.com") == (1, ["bob"])
    assert found(search="carl_") == (1, ["carl_"])
    assert found(search="nobody") == (0, [])
    pages = [found(search="example", offset=offset, limit=2) for offset in (0, 2, 4)]
    assert [total for total, _ in pages] == [5] * 3
    assert [name for _, names in pages for name in names] == found()[1]
    account_id = admin.get("/admin/accounts?search=ada@").json()["data"][0]["id"]
    assert found(search=account_id) == (1, ["ada"])
    assert admin.get("/admin/accounts?limit=0").status_code == 400


def test_credit_is_given_once_and_taken_back_as_far_as_it_goes(site, admin):
    path = f"/admin/accounts/{account_of(site)}/credit"
    body = {"amount": "2.50", "kind": "top_up", "operation_id": "payment:17"}
    assert admin.post(path, json=body).json()["balance"]["topped_up"] == "2.50"
    again = admin.post(path, json=body).json()
    assert (again["is_new"], again["balance"]["topped_up"]) == (False, "2.50")
    assert admin.post(path, json={"amount": "-3", "kind": "top_up"}).status_code == 402
    assert admin.post(path, json={"amount": "a lot"}).status_code == 400
    assert admin.get("/admin/audit").json() == {"faults": []}


def test_accounts_are_changed_and_disabled_at_once(site, admin):
    person = site.person()
    body = {"email": "ada@example.com", "password": PASSWORD}
    account_id = person.get("/account").json()["id"]
    path = f"/admin/accounts/{account_id}"
    changed = admin.patch(path, json={"priority": "batch", "day_cap": "1.5", "max_concurrency": 2}).json()
    assert (changed["priority"], changed["day_cap"], changed["max_concurrency"]) == ("batch", "1.50", 2)
    assert admin.patch(path, json={"day_cap": None}).json()["day_cap"] is None
    assert admin.patch(path, json={"role": None}).status_code == 400
    assert admin.delete(f"{path}/sessions").status_code == 204
    assert person.get("/account").status_code == 401
    assert person.post("/auth/sign-in", json=body).status_code == 200
    assert admin.patch(path, json={"is_disabled": True}).json()["is_disabled"]
    assert person.get("/account").status_code in (401, 403)
    assert admin.patch("/admin/accounts/none", json={"weight": 2}).status_code == 404


def test_the_last_admin_stays(site, admin):
    account_id = admin.get("/account").json()["id"]
    for body in ({"role": "user"}, {"is_disabled": True}):
        assert admin.patch(f"/admin/accounts/{account_id}", json=body).status_code == 409
    assert admin.get("/account").json()["role"] == "admin"


def test_an_admin_makes_a_key_for_somebody(site, admin):
    key = admin.post(f"/admin/accounts/{account_of(site)}/keys", json={"name": "ci"}).json()["key"]
    assert site.browser().get("/v1/models", headers={"x-api-key": key}).status_code == 200
