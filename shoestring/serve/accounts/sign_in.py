"""Sign-up and sign-in; failures cost the one who sends them, never the owner of the account."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from sqlalchemy import Connection

from shoestring.serve.accounts import codes, people
from shoestring.serve.accounts.oidc import Identity
from shoestring.serve.accounts.passwords import Passwords, check_password
from shoestring.serve.accounts.people import Account, Purpose
from shoestring.serve.accounts.secret import Secret
from shoestring.serve.accounts.tokens import new_token
from shoestring.serve.admission.buckets import Buckets, Rate
from shoestring.serve.backends.errors import RequestError
from shoestring.serve.storage.database import Database

ACCOUNT_RATE, DEVICE_RATE = Rate(10, 900), Rate(20, 900)
"""Failed sign-ins to an account in 15 minutes: from all browsers new to it, and from one that it knows."""
ADDRESS_RATE, NETWORK_RATE = Rate(30, 900), Rate(300, 900)
"""Failed sign-ins from an address, and from its network."""
WRONG = "the address, the password or the code is wrong"
CODE_NEEDED = "a code of the authenticator app is needed"
LINK_S = 3600


@dataclass(frozen=True, kw_only=True)
class Credentials:
    """The things by which a person signs in."""

    email: str
    password: str = field(repr=False)
    code: str | None = field(default=None, repr=False)
    """Of the authenticator app, or a recovery code."""
    device: str | None = field(default=None, repr=False)
    """The token of a browser that has signed in before."""
    address: str = ""
    network: str = ""


@dataclass(frozen=True, kw_only=True)
class SignedIn:
    """A new session; the tokens are for cookies."""

    account: Account
    session: str = field(repr=False)
    device: str = field(repr=False)


class SignIn:
    """The way in for people. Use it on one event loop."""

    def __init__(
        self,
        database: Database,
        secret: Secret,
        passwords: Passwords | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._database, self._secret, self._clock = database, secret, clock
        self.passwords = passwords or Passwords()
        self._failures = Buckets()

    async def sign_up(self, email: str, password: str, link: str | None = None) -> Account:
        """A new account; a link of the first admin makes an admin. Raises RequestError."""
        email = checked_email(email)
        check_password(password, email=email)
        password_hash = await self.passwords.hash(password, is_stranger=True)
        digest, now_s = self.digest("links", link or ""), self.now_s()

        def add(connection: Connection) -> Account:
            purpose = None
            if link is not None:
                purpose = people.use_link(connection, digest, ("first_admin", "invite"), now_s).purpose
            role: people.Role = "admin" if purpose == "first_admin" else "user"
            return people.add_account(connection, email, password_hash, role, now_s)

        return await self._database.write(add)

    async def has_link(self, link: str, purpose: Purpose) -> bool:
        """Return whether a one-time link is good, without using it."""
        digest, now_s = self.digest("links", link), self.now_s()
        return await self._database.read(
            lambda connection: people.link_is_good(connection, digest, purpose, now_s)
        )

    async def sign_in(self, credentials: Credentials) -> SignedIn:
        """Begin a session. Raises RequestError for wrong credentials, or after too many wrong ones."""
        email = credentials.email.strip().lower()
        account = await self._database.read(lambda connection: people.account_by_email(connection, email))
        is_known = await self._knows(account, credentials.device)
        budgets = self._budgets(credentials, email, is_known)
        self._begin(budgets)
        password_hash = account.password_hash if account else None
        fits = await self.passwords.fits(credentials.password, password_hash, is_stranger=not is_known)
        if account is None or not fits:
            raise RequestError("authentication", WRONG)
        await self._check_code(account, credentials.code)
        self._succeed(budgets)
        return await self.begin_session(account)

    async def account_of(self, identity: Identity) -> Account | None:
        """The account of a person whom another service knows; None for somebody new."""
        return await self._database.read(lambda connection: people.account_by_identity(connection, identity))

    async def sign_up_by(self, identity: Identity) -> Account:
        """A new account for a person whom another service knows. Raises RequestError.

        An address that has an account is not taken over: its owner signs in with the password.
        """
        if identity.email is None:
            raise RequestError("permission", "the other service has not checked your e-mail address")
        email, now_s = checked_email(identity.email), self.now_s()

        def add(connection: Connection) -> Account:
            account = people.add_account(connection, email, None, "user", now_s)
            people.add_identity(connection, identity, account.id)
            return people.change_account(connection, account.id, email_checked_s=now_s)

        return await self._database.write(add)

    async def begin_session(self, account: Account) -> SignedIn:
        """A session of a person who has shown who they are. Raises RequestError for a disabled account."""
        if account.disabled_s is not None:
            raise RequestError("permission", "this account is disabled; ask the operator")
        session, device, now_s = new_token(), new_token(), self.now_s()

        def begin(connection: Connection) -> None:
            people.add_session(connection, self.digest("sessions", session), account.id, now_s)
            people.add_device(connection, self.digest("devices", device), account.id, now_s)

        await self._database.write(begin)
        return SignedIn(account=account, session=session, device=device)

    async def confirm(self, account_id: str, password: str, code: str | None) -> Account:
        """The account of a signed-in person who says the password, and a code if there are codes, again.

        Raises RequestError.
        """
        account = await self._database.read(lambda connection: people.account_of(connection, account_id))
        budgets = {f"confirm {account_id}": DEVICE_RATE}
        self._begin(budgets)
        if not await self.passwords.fits(password, account.password_hash):
            raise RequestError("authentication", WRONG)
        await self._check_code(account, code)
        self._succeed(budgets)
        return account

    def digest(self, purpose: str, token: str) -> str:
        """The digest of a token, which is all that the database keeps."""
        return self._secret.digest(purpose, token)

    async def _knows(self, account: Account | None, device: str | None) -> bool:
        if account is None or not device:
            return False
        digest, now_s = self.digest("devices", device), self.now_s()
        return await self._database.read(
            lambda connection: people.knows_device(connection, digest, account.id, now_s)
        )

    async def _check_code(self, account: Account, code: str | None) -> None:
        """Raise RequestError when an account has codes and this is none of them."""
        if account.has_codes and not code:
            raise RequestError("authentication", CODE_NEEDED, field="code")
        if account.has_codes and not await self._use_code(account, code or ""):
            raise RequestError("authentication", WRONG)

    async def _use_code(self, account: Account, code: str) -> bool:
        """Use up a code or recovery code; False for a wrong one."""
        assert account.totp_nonce is not None
        step = codes.code_step(self._secret, account.totp_nonce, code, self._clock(), account.totp_step)
        if step is not None:
            return await self._database.write(
                lambda connection: people.use_code_step(connection, account.id, step)
            )
        digest = self.digest("recovery codes", code.strip().lower())
        return await self._database.write(
            lambda connection: people.use_recovery_code(connection, digest, account.id)
        )

    def _budgets(self, credentials: Credentials, email: str, is_known: bool) -> dict[str, Rate]:
        """Budgets of failures that a try counts in.

        A browser that the account knows has one of its own, so that nobody else can use up its owner's.
        """
        if is_known:
            return {f"device {credentials.device}": DEVICE_RATE}
        budgets = {f"account {email}": ACCOUNT_RATE}
        if credentials.address:
            budgets |= {
                f"address {credentials.address}": ADDRESS_RATE,
                f"network {credentials.network}": NETWORK_RATE,
            }
        return budgets

    def _begin(self, budgets: dict[str, Rate]) -> None:
        """Count a try as a failure until it succeeds. Raises RequestError when there were too many."""
        for name, rate in budgets.items():
            level = self._failures.look(name, rate)
            if not level.is_enough:
                sentence = "too many wrong sign-ins; wait, or use a browser that has signed in before"
                raise RequestError("rate_limit", sentence, retry_after_s=level.retry_after_s)
        for name, rate in budgets.items():
            self._failures.take(name, rate)

    def _succeed(self, budgets: dict[str, Rate]) -> None:
        for name, rate in budgets.items():
            self._failures.correct(name, rate, -1)

    def now_s(self) -> int:
        """The time, in whole seconds since 1970."""
        return int(self._clock())


def checked_email(text: str) -> str:
    """An address of e-mail in lower case. Raises RequestError for what is none."""
    email = text.strip().lower()
    name, _, domain = email.rpartition("@")
    is_good = name and "." in domain.strip(".") and email.isprintable() and " " not in email
    if not is_good or len(email) > 254 or "@" in name:
        raise RequestError("invalid", "this is no e-mail address", field="email")
    return email
