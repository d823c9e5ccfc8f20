"""A service with accounts: its app on a database of each kind, with people who sign in."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from starlette.testclient import TestClient

from shoestring.serve.accounts import passwords
from shoestring.serve.accounts.accounts import Accounts
from shoestring.serve.accounts.secret import Secret
from shoestring.serve.admission.admission import Admission
from shoestring.serve.app import build_app
from shoestring.serve.chats.store import ChatStore
from shoestring.serve.gate.gate import Gate
from shoestring.serve.gate.stored_records import StoredRecords
from shoestring.serve.hosting import Hosting
from shoestring.serve.ledger.meter import Meter
from shoestring.serve.ledger.prices import PriceList
from shoestring.serve.service import Service
from shoestring.serve.storage.database import Database
from tests.serve.words import Words

Clock = Callable[[], float]
PASSWORD = "correct horse battery"


@dataclass
class Site:
    """The service and its parts."""

    app: Any
    hosting: Hosting
    mails: list[tuple[str, str, str]]
    client: TestClient

    def browser(self) -> TestClient:
        """A browser of its own, whose requests are answered on the service's event loop."""
        browser = TestClient(self.app, raise_server_exceptions=False, base_url="https://testserver")
        browser.portal = self.client.portal
        return browser

    def do(self, work: Any, *arguments: Any) -> Any:
        """The result of a coroutine function on the service's event loop."""
        return self.client.portal.call(work, *arguments)

    def link(self, purpose: str, **fields: Any) -> str:
        """The token of a new one-time link."""
        accounts = self.hosting.accounts

        async def make() -> str:
            return (await accounts.link(purpose, **fields)).rpartition("/")[2]

        return self.do(make)

    def person(self, email: str = "ada@example.com", link: str | None = None) -> TestClient:
        """A browser in which a new person is signed in."""
        browser = self.browser()
        body = {"email": email, "password": PASSWORD}
        assert browser.post("/auth/sign-up", json={**body, "link": link}).status_code == 201
        assert browser.post("/auth/sign-in", json=body).status_code == 200
        return browser

    def admin(self) -> TestClient:
        """A browser in which an admin is signed in."""
        return self.person("root@example.com", self.link("first_admin"))


def new_site(
    url: str,
    *,
    has_mail: bool = False,
    prices: PriceList | None = None,
    clock: Clock = time.time,
    backend: Any = None,
) -> Site:
    """A service with accounts, not started; its model is Words, or `backend`."""
    model = backend or Words()
    mails: list[tuple[str, str, str]] = []

    async def send(*mail: str) -> None:
        mails.append(mail)

    database = Database(url)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(passwords, "MEMORY_KIB", 8)  # argon2id's least: hashes that cost nothing
        patch.setattr(passwords, "PASSES", 1)
        accounts = Accounts(
            database, Secret(b"s" * 32), url="https://testserver", send=send if has_mail else None
        )
    admission = Admission()
    gate = Gate(StoredRecords(database), admission=admission)
    hosting = Hosting(accounts, Meter(database, prices or PriceList(), clock), admission, gate)
    service = Service({model.card.id: model}, meter=hosting.meter, admission=admission, gate=gate)
    app = build_app(service, hosting, ChatStore(database, hosting.meter.server_id))
    return Site(app, hosting, mails, TestClient(app, raise_server_exceptions=False))
