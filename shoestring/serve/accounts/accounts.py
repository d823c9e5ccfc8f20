"""The accounts of a service: the way in, the callers of requests, and links for what one cannot do alone."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from shoestring.serve.accounts import actions, keys, people
from shoestring.serve.accounts.authenticator import Authenticator
from shoestring.serve.accounts.keys import KeySettings
from shoestring.serve.accounts.mail import Send
from shoestring.serve.accounts.oidc import Provider
from shoestring.serve.accounts.people import Account, Purpose, Role
from shoestring.serve.accounts.secret import Secret
from shoestring.serve.accounts.sign_in import LINK_S, SignIn, checked_email
from shoestring.serve.accounts.tokens import new_key, new_token
from shoestring.serve.storage.database import Database

FIRST_ADMIN_S = 86_400
INVITE_S = 7 * 86_400
SUBJECTS = {
    "check_email": "Confirm your address",
    "change_email": "Confirm your new address",
    "reset_password": "A new password",
}


class Accounts:
    """Everything about people that routes need. Use it on one event loop."""

    def __init__(
        self,
        database: Database,
        secret: Secret,
        *,
        url: str = "",
        send: Send | None = None,
        provider: Provider | None = None,
    ) -> None:
        """`url` is where people reach the service, for links; `send` sends mail, `provider` knows people."""
        self.database, self.secret, self.url, self.send = database, secret, url, send
        self.provider = provider
        self.sign_in = SignIn(database, secret)
        self.is_https = url.startswith("https:")
        prefix = "__Host-" if self.is_https else ""  # then no other host and no plain HTTP can set them
        names = ("session", "device", "attempt")
        cookies = (f"{prefix}shoestring_{name}" for name in names)
        self.session_cookie, self.device_cookie, self.attempt_cookie = cookies
        self.authenticator = Authenticator(database, secret, self.session_cookie)

    async def read(self, work: Callable[..., Any], *arguments: Any) -> Any:
        """The result of statements that read."""
        return await self.database.read(lambda connection: work(connection, *arguments))

    async def change(self, work: Callable[..., Any], *arguments: Any, **values: Any) -> Any:
        """The result of statements that change an account, a key or a session; callers are read anew."""
        result = await self.database.write(lambda connection: work(connection, *arguments, **values))
        self.authenticator.forget()
        return result

    async def link(
        self, purpose: Purpose, *, account: Account | None = None, email: str | None = None
    ) -> str:
        """A new one-time link."""
        token, now_s = new_token(), self.now_s()
        seconds = {"first_admin": FIRST_ADMIN_S, "invite": INVITE_S}.get(purpose, LINK_S)
        digest = self.sign_in.digest("links", token)
        account_id = account.id if account else None
        await self.database.write(
            lambda connection: people.add_link(
                connection, digest, purpose, now_s + seconds, account_id, email
            )
        )
        return f"{self.url}/#/link/{purpose}/{token}"

    async def mail_link(self, purpose: Purpose, account: Account, email: str | None = None) -> None:
        """Send a one-time link to the address of an account, or to the one that it is to have.

        Does nothing when there is no mail server.
        """
        address = email or account.email
        if self.send is None or address is None:
            return
        link = await self.link(purpose, account=account, email=email)
        text = f"{SUBJECTS[purpose]}: open this link within an hour.\n\n{link}\n"
        await self.send(address, SUBJECTS[purpose], text)

    async def tell(self, account: Account, sentence: str) -> None:
        """Mail the owner of an account that the way into it has changed, if there is a mail server."""
        if self.send is not None and account.email is not None:
            advice = "If this was not you, set a new password at once and end all sessions."
            await self.send(account.email, "Your account", f"{sentence}\n{advice}\n")

    async def invite(self, email: str, role: Role) -> Account:
        """An account for somebody who sets a password by a link. Raises RequestError."""
        address, now_s = checked_email(email), self.now_s()
        return await self.database.write(
            lambda connection: people.add_account(connection, address, None, role, now_s)
        )

    async def add_key(self, account_id: str, settings: KeySettings) -> str:
        """A new API key: its text, which is shown this once."""
        key, now_s = new_key(), self.now_s()
        digest = key.digest(self.secret)
        await self.database.write(
            lambda connection: keys.add_key(connection, key.id, digest, account_id, settings, now_s)
        )
        return key.text(self.secret)

    async def note(self, actor: str, action: str, account_id: str | None = None, detail: str = "") -> None:
        """Keep what an admin did."""
        now_s = self.now_s()
        await self.database.write(
            lambda connection: actions.add_action(connection, now_s, actor, action, account_id, detail)
        )

    async def first_admin_link(self) -> str | None:
        """A link for the first admin; None when there is an admin."""
        return None if await self.read(people.has_admin) else await self.link("first_admin")

    async def forget_old(self) -> int:
        """Delete what has expired."""
        now_s = self.now_s()

        def forget(connection: Connection) -> int:
            return people.forget_old(connection, now_s)

        return await self.database.write(forget)

    def now_s(self) -> int:
        """The time, in whole seconds since 1970."""
        return self.sign_in.now_s()


def write_operator_file(path: Path, url: str, key: str) -> None:
    """Keep where the service is and the operator's key, for the command line of its owner alone."""
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump({"url": url, "key": key}, file)
