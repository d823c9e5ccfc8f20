"""The sender of a request, found before its body is read: an API key, a person, or nobody."""

import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers

from shoestring.serve.accounts import keys, people
from shoestring.serve.accounts.people import Account
from shoestring.serve.accounts.secret import Secret
from shoestring.serve.accounts.tokens import read_key
from shoestring.serve.backends.errors import RequestError
from shoestring.serve.caller import Caller, Scope
from shoestring.serve.ledger.caps import Cap
from shoestring.serve.storage.database import Database

KNOWN_S = 10.0
"""Seconds for which a key or session is taken as it was read: another process may revoke it meanwhile."""
MAX_KNOWN = 10_000
SEEN_EVERY_S = 600
WRONG_KEY = "Authentication Fails: this API key is not valid; make one on the account's page"
OTHER_SITE = "this request comes from a page of another site"
OPERATOR = "operator"
"""The account id of whoever runs the service's command line on this machine."""


class Authenticator:
    """Callers by their credentials. A key that this service never gave out costs no look at the database."""

    def __init__(
        self,
        database: Database,
        secret: Secret,
        session_cookie: str,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`session_cookie` is the name of the cookie with a session's token."""
        self._database, self._secret, self._clock = database, secret, clock
        self._session_cookie = session_cookie
        self._callers: OrderedDict[str, tuple[float, Caller | None]] = OrderedDict()
        self.operator_key = secrets.token_urlsafe(32)
        """The key of the operator's command line; a new one for each process."""

    async def caller(self, headers: Headers, *, is_safe: bool) -> Caller | None:
        """The caller; None without credentials. Raises RequestError for wrong ones.

        `is_safe` is False for methods that change something: then a cookie counts only from the service's own
        pages.
        """
        text = key_text(headers)
        if text is not None:
            return await self._by_key(text)
        token = cookie(headers, self._session_cookie)
        if token is None:
            return None
        if not is_safe and not is_same_site(headers):
            raise RequestError("permission", OTHER_SITE)
        return await self.by_session(token)

    async def by_session(self, token: str) -> Caller | None:
        """The caller of a session; None when it has ended."""
        digest = self._secret.digest("sessions", token)
        return await self._recall(digest, lambda: self._read_session(digest))

    def forget(self) -> None:
        """Read everything anew: somebody has changed a key, a session or an account."""
        self._callers.clear()

    async def _by_key(self, text: str) -> Caller:
        if secrets.compare_digest(text.encode(), self.operator_key.encode()):
            return Caller(account_id=OPERATOR, scope="admin")
        key = read_key(text, self._secret)
        if key is None:
            raise RequestError("authentication", WRONG_KEY)
        digest = key.digest(self._secret)
        caller = await self._recall(f"{key.id} {digest}", lambda: self._read_key(key.id, digest))
        if caller is None:
            raise RequestError("authentication", WRONG_KEY)
        return caller

    async def _recall(self, name: str, read: Callable[[], Any]) -> Caller | None:
        """The caller that was read a moment ago, or is read now."""
        now_s = self._clock()
        memory = self._callers.get(name)
        if memory is not None and now_s - memory[0] < KNOWN_S:
            return memory[1]
        caller: Caller | None = await read()
        self._callers[name] = now_s, caller
        self._callers.move_to_end(name)
        if len(self._callers) > MAX_KNOWN:
            self._callers.popitem(last=False)
        return caller

    async def _read_key(self, key_id: str, digest: str) -> Caller | None:
        row = await self._database.read(lambda connection: keys.find_key(connection, key_id))
        now_s = self._clock()
        if row is None or not secrets.compare_digest(row["digest"], digest):
            return None
        if row["revoked_s"] is not None or (row["expires_s"] or now_s) < now_s:
            return None
        if row["account_disabled_s"] is not None:
            raise RequestError("permission", "this account is disabled; ask the operator")
        return Caller(
            account_id=row["account_id"],
            key_id=key_id,
            scope=_scope(row["scope"], row["account_role"]),
            priority=row["account_priority"],
            weight=row["account_weight"],
            max_concurrency=row["account_max_concurrency"],
            requests_per_minute=row["requests_per_minute"] or row["account_requests_per_minute"],
            tokens_per_minute=row["tokens_per_minute"] or row["account_tokens_per_minute"],
            caps=_caps(row["account_id"], row["account_day_cap"], row["account_month_cap"])
            + _caps(key_id, row["day_cap"], row["month_cap"]),
        )

    async def _read_session(self, digest: str) -> Caller | None:
        now_s = int(self._clock())
        session = await self._database.read(
            lambda connection: people.session_account(connection, digest, now_s)
        )
        if session is None:
            return None
        account, seen_s = session
        if account.disabled_s is not None:
            raise RequestError("permission", "this account is disabled; ask the operator")
        if now_s - seen_s > SEEN_EVERY_S:
            await self._database.write(lambda connection: people.see_session(connection, digest, now_s))
        return caller_of(account)


def caller_of(account: Account) -> Caller:
    """The caller that a signed-in person is."""
    return Caller(
        account_id=account.id,
        scope="admin" if account.role == "admin" else "account",
        priority=account.priority,  # type: ignore[arg-type]
        weight=account.weight,
        max_concurrency=account.max_concurrency,
        requests_per_minute=account.requests_per_minute,
        tokens_per_minute=account.tokens_per_minute,
        caps=_caps(account.id, account.day_cap, account.month_cap),
    )


def cookie(headers: Headers, name: str) -> str | None:
    """A cookie of a request."""
    try:
        morsel = SimpleCookie(headers.get("cookie", "")).get(name)
    except CookieError:
        return None
    return morsel.value if morsel else None


def is_same_site(headers: Headers) -> bool:
    """Return whether a request comes from the service's own pages, as browsers say, or from no browser."""
    site = headers.get("sec-fetch-site")
    if site is not None:
        return site in ("same-origin", "none")
    origin = headers.get("origin")
    return origin is None or urlsplit(origin).netloc == headers.get("host")


def key_text(headers: Headers) -> str | None:
    """The key of a request, as OpenAI's, DeepL's or Anthropic's clients send it."""
    scheme, _, text = headers.get("authorization", "").partition(" ")
    if scheme.lower() in ("bearer", "deepl-auth-key"):
        return text.strip()
    return headers.get("x-api-key")


def _scope(scope: Scope, role: str) -> Scope:
    """A key's scope; one of an account that is no longer an admin's loses that part."""
    return "account" if scope == "admin" and role != "admin" else scope


def _caps(owner_id: str, day: int | None, month: int | None) -> tuple[Cap, ...]:
    amounts = {"day": day, "month": month}
    return tuple(Cap(owner_id, period, amount) for period, amount in amounts.items() if amount is not None)
