"""The guard: which route a request is for, who sends it, and whether that sender may call it."""

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import replace

from fastapi import APIRouter
from starlette.datastructures import Headers
from starlette.routing import BaseRoute, Match
from starlette.types import Scope

from shoestring.serve.accounts.accounts import Accounts
from shoestring.serve.accounts.authenticator import OTHER_SITE, is_same_site, key_text
from shoestring.serve.admission.address import network_of
from shoestring.serve.audience import Audience
from shoestring.serve.backends.errors import RequestError
from shoestring.serve.caller import LOCAL, NOBODY, Caller
from shoestring.serve.service import Service

SAFE = ("GET", "HEAD", "OPTIONS")
ALWAYS = ("/health", "/ready", "/metrics")
"""Paths that answer while the service ends, and however often they are asked."""
FILES = "/app/"
"""Files of the page: one visit asks for twenty, and none costs more than sending it."""
NO_KEY = "Authentication Fails: send an API key, as in `Authorization: Bearer ss-...`"
SENTENCES = {
    Audience.ACCOUNT: "this key may only ask models; sign in, or use a key of the scope `account`",
    Audience.ADMIN: "only an admin may do this",
}
SCOPES = {
    Audience.KEY: ("inference", "account", "admin"),
    Audience.ACCOUNT: ("account", "admin"),
    Audience.ADMIN: ("admin",),
}


class Guard:
    """The callers of routes, found from a request's head alone."""

    def __init__(self, routers: Sequence[APIRouter], service: Service, accounts: Accounts | None) -> None:
        """Without `accounts` whoever reaches the port may do everything."""
        self._routes = [route for router in routers for route in router.routes]
        self._service, self._accounts = service, accounts
        self.is_https = accounts is not None and accounts.is_https
        """People reach the service over HTTPS, also when a proxy speaks plain HTTP to it."""

    async def caller(self, scope: Scope) -> Caller:
        """The caller of a request. Raises RequestError when it may not call its route, or asks too often."""
        headers = Headers(scope=scope)
        if self._accounts is None:
            if self._audience(scope) in (Audience.ACCOUNT, Audience.ADMIN):
                check_own_page(headers, scope["method"])
            return LOCAL
        address = self.address(scope)
        who = self._audience(scope)
        if who is Audience.ANYONE:
            if scope["path"] not in ALWAYS and not scope["path"].startswith(FILES):
                self._count_stranger(address)
            return replace(NOBODY, address=address)
        try:
            caller = await self._identify(self._accounts, headers, address, scope["method"])
        except RequestError as error:
            if error.kind == "authentication":
                self._count_stranger(address, is_refused=True)
            raise
        if caller.scope not in SCOPES[who]:
            raise RequestError("permission", SENTENCES[who])
        return replace(caller, address=address)

    async def _identify(self, accounts: Accounts, headers: Headers, address: str, method: str) -> Caller:
        """The sender of a request.

        The sessions of an address that has sent too much of what is wrong are not looked up. Keys are: a
        wrong one is seen without the database, and the owner of a right one may share the address.
        """
        admission = self._service.admission
        if admission is not None and key_text(headers) is None and not admission.may_try(address):
            admission.check_stranger(address)
        caller = await accounts.authenticator.caller(headers, is_safe=method in SAFE)
        if caller is None:
            raise RequestError("authentication", NO_KEY)
        if admission is not None:
            admission.connections.greet(address)
        return caller

    def _count_stranger(self, address: str, *, is_refused: bool = False) -> None:
        """Count a request of nobody we know. Raises RequestError when there are too many."""
        if is_refused and self._service.gate is not None:
            self._service.gate.signals.refusal(network_of(address))
        if self._service.admission is not None:
            self._service.admission.check_stranger(address)

    def address(self, scope: Scope) -> str:
        """The address that a request comes from; behind a proxy that is trusted, the one that it names."""
        peer = scope["client"][0] if scope.get("client") else ""
        if self._service.admission is None:
            return peer
        return self._service.admission.proxies.client(peer, scope["headers"])

    def _audience(self, scope: Scope) -> Audience:
        """The audience of a request's route; a path that does not exist is anyone's to ask for."""
        route = next((route for route in self._routes if route.matches(scope)[0] is Match.FULL), None)
        return _declared(route) if route else Audience.ANYONE


def check_own_page(headers: Headers, method: str) -> None:
    """Raise RequestError for a request that a page of another site sends to this machine.

    Such a page may have a name that leads here, so what is kept here is given under this machine's own names
    alone; and it may send a request without reading the answer, so nothing is changed for it.
    """
    host = re.sub(r":[0-9]*$", "", headers.get("host", "localhost").lower())
    if host != "localhost" and not host.endswith(".localhost") and not is_address(host.strip("[]")):
        sentence = "this is kept for this machine alone: open it as http://localhost or http://127.0.0.1"
        raise RequestError("permission", f"{sentence}, or serve with accounts = true")
    if method not in SAFE and not is_same_site(headers):
        raise RequestError("permission", OTHER_SITE)


def is_address(host: str) -> bool:
    """Return whether a host is an IP address, which no other site can have as its name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _declared(route: BaseRoute) -> Audience:
    audience: Audience = route.endpoint.audience  # type: ignore[attr-defined]
    return audience
