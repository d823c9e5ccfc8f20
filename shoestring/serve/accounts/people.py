"""People in the database: accounts, their sessions, known browsers, recovery codes and one-time links.

Functions here are statements on a connection, for one transaction. Tokens come as digests.
"""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from sqlalchemy import Connection, Row, RowMapping, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from shoestring.serve.accounts.oidc import Identity
from shoestring.serve.backends.errors import RequestError
from shoestring.serve.ledger.operations import open_balance
from shoestring.serve.storage.tables import accounts, devices, identities, links, recovery_codes, sessions

Role = Literal["user", "admin"]
Purpose = Literal["first_admin", "invite", "check_email", "change_email", "reset_password"]
IDLE_S, SESSION_S, DEVICE_S = 7 * 86_400, 30 * 86_400, 180 * 86_400


@dataclass(frozen=True, kw_only=True)
class Account:
    """A person's account."""

    id: str
    email: str | None
    password_hash: str | None = field(repr=False)
    role: Role
    created_s: int
    email_checked_s: int | None
    disabled_s: int | None
    totp_nonce: str | None = field(repr=False)
    totp_step: int | None
    """The newest time step whose code was used; None until codes are switched on."""
    priority: str
    weight: int
    max_concurrency: int | None
    requests_per_minute: int | None
    tokens_per_minute: int | None
    day_cap: int | None
    month_cap: int | None

    @property
    def has_codes(self) -> bool:
        """Whether sign-in asks for a code."""
        return self.totp_step is not None


def account(row: Row[Any]) -> Account:
    """An account from its row."""
    return Account(**{name: getattr(row, name) for name in Account.__dataclass_fields__})


def add_account(
    connection: Connection, email: str, password_hash: str | None, role: Role, time_s: int
) -> Account:
    """A new account with an empty balance. Raises RequestError for an address that has one."""
    account_id = f"acc_{secrets.token_hex(8)}"
    row = insert(accounts).values(
        id=account_id,
        email=email,
        password_hash=password_hash,
        role=role,
        created_s=time_s,
        priority="standard",
        weight=1,
    )
    try:
        with connection.begin_nested():
            connection.execute(row)
    except IntegrityError:
        sentence = "this address has an account; sign in, or reset its password"
        raise RequestError("conflict", sentence, field="email") from None
    open_balance(connection, account_id)
    return account_of(connection, account_id)


def account_of(connection: Connection, account_id: str) -> Account:
    """The account of an id. Raises RequestError when there is none."""
    row = connection.execute(select(accounts).where(accounts.c.id == account_id)).first()
    if row is None:
        raise RequestError("not_found", "there is no such account")
    return account(row)


def account_by_email(connection: Connection, email: str) -> Account | None:
    """The account of an address."""
    row = connection.execute(select(accounts).where(accounts.c.email == email)).first()
    return account(row) if row else None


def account_by_identity(connection: Connection, identity: Identity) -> Account | None:
    """The account of a person whom another service knows."""
    here = (identities.c.issuer == identity.issuer) & (identities.c.subject == identity.subject)
    query = select(accounts).join(identities, identities.c.account_id == accounts.c.id)
    row = connection.execute(query.where(here)).first()
    return account(row) if row else None


def add_identity(connection: Connection, identity: Identity, account_id: str) -> None:
    """Remember by which name another service knows the owner of an account."""
    row = {"issuer": identity.issuer, "subject": identity.subject, "account_id": account_id}
    connection.execute(insert(identities).values(**row))


def has_admin(connection: Connection) -> bool:
    """Return whether somebody can administrate the service."""
    is_admin = (accounts.c.role == "admin") & accounts.c.disabled_s.is_(None)
    return connection.execute(select(accounts.c.id).where(is_admin)).first() is not None


def list_accounts(
    connection: Connection, search: str = "", offset: int = 0, limit: int = 1000
) -> tuple[list[Account], int]:
    """Accounts whose address or id has a text, the newest first, and the number of all of them."""
    text = search.strip().lower()
    fits = accounts.c.email.contains(text, autoescape=True) | accounts.c.id.contains(text, autoescape=True)
    query = select(accounts).where(fits).order_by(accounts.c.created_s.desc(), accounts.c.id)
    total = connection.execute(select(func.count()).select_from(accounts).where(fits)).scalar_one()
    return [account(row) for row in connection.execute(query.offset(offset).limit(limit))], int(total)


def change_account(connection: Connection, account_id: str, **values: Any) -> Account:
    """Change columns of an account. Raises RequestError when there is none."""
    connection.execute(update(accounts).where(accounts.c.id == account_id).values(**values))
    return account_of(connection, account_id)


def change_email(connection: Connection, account_id: str, email: str, checked_s: int | None) -> Account:
    """Give an account another address. Raises RequestError when it is another account's."""
    try:
        with connection.begin_nested():
            return change_account(connection, account_id, email=email, email_checked_s=checked_s)
    except IntegrityError:
        raise RequestError("conflict", "this address has an account", field="email") from None


def use_code_step(connection: Connection, account_id: str, step: int) -> bool:
    """Use up a time step's code; False when it or a later one was used meanwhile."""
    is_new = accounts.c.totp_step.is_(None) | (accounts.c.totp_step < step)
    statement = update(accounts).where((accounts.c.id == account_id) & is_new).values(totp_step=step)
    return connection.execute(statement).rowcount == 1


def add_session(connection: Connection, digest: str, account_id: str, time_s: int) -> None:
    """Begin a session."""
    row = {"digest": digest, "account_id": account_id, "created_s": time_s, "seen_s": time_s}
    connection.execute(insert(sessions).values(expires_s=time_s + SESSION_S, **row))


def session_account(connection: Connection, digest: str, time_s: int) -> tuple[Account, int] | None:
    """The account of a session that is neither too old nor idle for too long, and when it was last seen."""
    lives = (sessions.c.expires_s > time_s) & (sessions.c.seen_s > time_s - IDLE_S)
    query = select(accounts, sessions.c.seen_s).join(sessions, sessions.c.account_id == accounts.c.id)
    row = connection.execute(query.where((sessions.c.digest == digest) & lives)).first()
    return (account(row), int(row.seen_s)) if row else None


def see_session(connection: Connection, digest: str, time_s: int) -> None:
    """Note that a session is in use."""
    connection.execute(update(sessions).where(sessions.c.digest == digest).values(seen_s=time_s))


def sessions_of(connection: Connection, account_id: str) -> list[Row[Any]]:
    """The sessions of an account, the newest first."""
    query = select(sessions).where(sessions.c.account_id == account_id)
    return list(connection.execute(query.order_by(sessions.c.created_s.desc(), sessions.c.digest)))


def end_sessions(connection: Connection, account_id: str, begin: str = "") -> None:
    """End the sessions whose digests begin so, or all. Raises RequestError when there is none to end."""
    here = (sessions.c.account_id == account_id) & sessions.c.digest.startswith(begin, autoescape=True)
    if connection.execute(delete(sessions).where(here)).rowcount == 0 and begin:
        raise RequestError("not_found", "you have no such session")


def end_other_sessions(connection: Connection, account_id: str, digest: str) -> None:
    """End the sessions of an account but one."""
    here = (sessions.c.account_id == account_id) & (sessions.c.digest != digest)
    connection.execute(delete(sessions).where(here))


def end_session(connection: Connection, digest: str) -> None:
    """End one session."""
    connection.execute(delete(sessions).where(sessions.c.digest == digest))


def add_device(connection: Connection, digest: str, account_id: str, time_s: int) -> None:
    """Remember a browser that an account has signed in from."""
    row = {"digest": digest, "account_id": account_id, "expires_s": time_s + DEVICE_S}
    connection.execute(insert(devices).values(**row))


def knows_device(connection: Connection, digest: str, account_id: str, time_s: int) -> bool:
    """Return whether an account has signed in from a browser before."""
    here = (devices.c.digest == digest) & (devices.c.account_id == account_id)
    return (
        connection.execute(select(devices.c.digest).where(here & (devices.c.expires_s > time_s))).first()
        is not None
    )


def set_recovery_codes(connection: Connection, account_id: str, digests: Sequence[str]) -> None:
    """Replace an account's recovery codes."""
    connection.execute(delete(recovery_codes).where(recovery_codes.c.account_id == account_id))
    if digests:
        rows = [{"digest": digest, "account_id": account_id} for digest in digests]
        connection.execute(insert(recovery_codes), rows)


def use_recovery_code(connection: Connection, digest: str, account_id: str) -> bool:
    """Use up a recovery code; False when the account has no such code."""
    here = (recovery_codes.c.digest == digest) & (recovery_codes.c.account_id == account_id)
    return connection.execute(delete(recovery_codes).where(here)).rowcount == 1


def add_link(
    connection: Connection,
    digest: str,
    purpose: Purpose,
    expires_s: int,
    account_id: str | None = None,
    email: str | None = None,
) -> None:
    """Make a one-time link; an account has one of each purpose, the newest."""
    if account_id is not None:
        same = (links.c.account_id == account_id) & (links.c.purpose == purpose)
        connection.execute(delete(links).where(same))
    row = {"digest": digest, "purpose": purpose, "account_id": account_id, "email": email}
    connection.execute(insert(links).values(expires_s=expires_s, **row))


def use_link(connection: Connection, digest: str, purposes: Sequence[Purpose], time_s: int) -> Row[Any]:
    """Use up a link. Raises RequestError for one that is wrong, used or too old."""
    here = (links.c.digest == digest) & links.c.purpose.in_(purposes) & (links.c.expires_s > time_s)
    row = connection.execute(select(links).where(here)).first()
    if row is None or connection.execute(delete(links).where(links.c.digest == digest)).rowcount != 1:
        raise RequestError("permission", "this link was used, or is too old; ask for a new one")
    return row


def links_of_admins(connection: Connection, time_s: int) -> list[RowMapping]:
    """The invitations and links for a new password that can still be used, those that last longest first."""
    is_good = links.c.purpose.in_(("invite", "reset_password")) & (links.c.expires_s > time_s)
    query = select(links).where(is_good).order_by(links.c.expires_s.desc(), links.c.digest)
    return list(connection.execute(query).mappings())


def delete_link(connection: Connection, begin: str) -> None:
    """Delete the link whose digest begins so. Raises RequestError when there is none."""
    if connection.execute(delete(links).where(links.c.digest.startswith(begin))).rowcount == 0:
        raise RequestError("not_found", "there is no such link")


def link_is_good(connection: Connection, digest: str, purpose: Purpose, time_s: int) -> bool:
    """Return whether a link exists and is not too old."""
    here = (links.c.digest == digest) & (links.c.purpose == purpose) & (links.c.expires_s > time_s)
    return connection.execute(select(links.c.digest).where(here)).first() is not None


def forget_old(connection: Connection, time_s: int) -> int:
    """Delete sessions, browsers and links that have expired; returns how many."""
    old = (sessions.c.expires_s <= time_s) | (sessions.c.seen_s <= time_s - IDLE_S)
    statements = (
        delete(sessions).where(old),
        delete(devices).where(devices.c.expires_s <= time_s),
        delete(links).where(links.c.expires_s <= time_s),
    )
    return sum(connection.execute(statement).rowcount for statement in statements)


def count_accounts(connection: Connection) -> int:
    """The number of accounts."""
    return int(connection.execute(select(func.count()).select_from(accounts)).scalar_one())
