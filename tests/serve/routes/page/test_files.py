"""The chat page: its files, and headers by which nothing else runs or is fetched."""

import re

import pytest


def test_the_page_and_its_files_are_there(client):
    page = client.get("/")
    assert page.status_code == 200
    for name in re.findall(r'(?:src|href)="/app/([^"]+)"', page.text):
        reply = client.get(f"/app/{name}")
        assert (reply.status_code, reply.headers["x-content-type-options"]) == (200, "nosniff")
        again = client.get(f"/app/{name}", headers={"If-None-Match": reply.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")


def test_a_service_without_accounts_asks_nobody(client):
    assert client.get("/auth/here").json() == {"has_accounts": False, "person": None, "has_chats": False}


def test_the_page_has_no_script_of_its_own_and_lets_nothing_else_in(client):
    page = client.get("/")
    assert re.findall(r"<script(?![^>]*\bsrc=)", page.text) == []
    assert "style=" not in page.text
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy


@pytest.mark.parametrize("name", ["stamp", "../status.html", "%2e%2e/status.py", "nothing.js"])
def test_nothing_else_is_given(client, name):
    assert client.get(f"/app/{name}").status_code == 404


def test_a_visit_with_its_many_files_is_no_flood(site):
    browser = site.browser()
    most = int(site.hosting.admission.limits.stranger_per_minute)
    assert {browser.get("/app/app.js").status_code for _ in range(most + 5)} == {200}
    assert {browser.get("/").status_code for _ in range(most + 5)} == {200, 429}
