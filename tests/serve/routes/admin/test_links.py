"""Admins see the links that can still be used, and take them back."""

from tests.serve.site import PASSWORD


def test_links_are_listed_without_their_tokens_and_taken_back(site):
    admin = site.admin()
    ada = site.person().get("/account").json()["id"]
    invitation = admin.post("/admin/links", json={"purpose": "invite"}).json()["link"]
    admin.post("/admin/links", json={"purpose": "reset_password", "account_id": ada})
    listed = admin.get("/admin/links").json()["data"]
    assert [(row["purpose"], row["account_id"]) for row in listed] == [
        ("invite", None),
        ("reset_password", ada),
    ]
    token = invitation.rpartition("/")[2]
    assert token not in str(listed)
    assert admin.delete(f"/admin/links/{listed[0]['id']}").status_code == 204
    assert admin.delete(f"/admin/links/{listed[0]['id']}").status_code == 404
    body = {"email": "eve@example.com", "password": PASSWORD, "link": token}
    assert site.browser().post("/auth/sign-up", json=body).status_code == 403
    assert [row["purpose"] for row in admin.get("/admin/links").json()["data"]] == ["reset_password"]


def test_a_new_password_is_for_a_named_account(site):
    admin = site.admin()
    assert admin.post("/admin/links", json={"purpose": "reset_password"}).status_code == 400
    body = {"purpose": "reset_password", "account_id": "acc_0"}
    assert admin.post("/admin/links", json=body).status_code == 404
