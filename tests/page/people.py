"""People of a service with accounts, made without its page."""

from typing import Any

import httpx2
from playwright.sync_api import Page

from tests.page.running import Running

PASSWORD = "correct horse battery"
ADMIN = "root@example.org"
QUESTION = {"model": "mini", "messages": [{"role": "user", "content": "2+3="}], "max_tokens": 8}


class Person:
    """Somebody who is signed in, as a program is."""

    def __init__(self, service: Running, email: str, link: str | None = None) -> None:
        self._url, self._cookies = service.url, httpx2.Cookies()
        body = {"email": email, "password": PASSWORD}
        if link is not None or email != ADMIN:
            self.call("POST", "/auth/sign-up", {**body, **({"link": link} if link else {})})
        self.call("POST", "/auth/sign-in", body)
        self.id: str = self.call("GET", "/account")["id"]

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """The JSON of a reply that is no error."""
        with httpx2.Client(base_url=self._url, cookies=self._cookies, timeout=60) as client:
            reply = client.request(method, path, json=body)
            self._cookies.update(client.cookies)
        assert reply.is_success, reply.text
        return reply.json() if reply.content else None

    def ask(self) -> None:
        """Ask mini something, so that there is usage."""
        self.call("POST", "/v1/chat/completions", QUESTION)


def make_admin(service: Running) -> Person:
    """The first admin of a new service."""
    return Person(service, ADMIN, service.link.rpartition("/")[2])


def make_person(service: Running, email: str, money: str = "") -> Person:
    """Somebody new, with some money."""
    person = Person(service, email)
    if money:
        path = f"/admin/accounts/{person.id}/credit"
        Person(service, ADMIN).call("POST", path, {"amount": money, "kind": "grant"})
    return person


def sign_in(page: Page, service: Running, email: str, route: str) -> None:
    """Sign somebody in on a page that asks for it, and go on to another one."""
    page.get_by_label("E-mail").fill(email)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("navigation", include_hidden=True).wait_for(state="attached")
    page.goto(f"{service.url}/{route}")
