"""Terms: the prices, rates and caps that hold for a caller, and none in the mode without accounts."""


def test_terms_are_the_callers_own(site):
    admin, person = site.admin(), site.person()
    account_id = person.get("/account").json()["id"]
    before = person.get("/user/terms").json()
    assert before == {
        "currency": None,
        "prices": {},
        "requests_per_minute": 6000,
        "tokens_per_minute": None,
        "concurrency": 500,
        "day_cap": None,
        "month_cap": None,
    }
    changes = {"requests_per_minute": 7, "max_concurrency": 2, "day_cap": "3", "month_cap": "50"}
    assert admin.patch(f"/admin/accounts/{account_id}", json=changes).status_code == 200
    own = {"requests_per_minute": 7, "concurrency": 2, "day_cap": "3.00", "month_cap": "50.00"}
    assert person.get("/user/terms").json() == before | own
    key = person.post("/account/keys", json={"day_cap": "1", "tokens_per_minute": 900}).json()["key"]
    terms = site.browser().get("/user/terms", headers={"x-api-key": key}).json()
    assert terms == before | own | {"day_cap": "1.00", "tokens_per_minute": 900}


def test_without_accounts_there_are_none(client):
    assert set(map(str, client.get("/user/terms").json().values())) == {"None", "{}"}
