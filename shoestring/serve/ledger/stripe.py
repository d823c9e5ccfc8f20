"""Payments by Stripe: signed events that become money of accounts, each payment once."""

import hashlib
import hmac
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from sqlalchemy import Connection, select

from shoestring.errors import ConfigError
from shoestring.serve.backends.errors import RequestError
from shoestring.serve.ledger.operations import add_funds, balance
from shoestring.serve.ledger.prices import NANOS, decimal
from shoestring.serve.storage.tables import accounts, operations

log = logging.getLogger(__name__)

Booking = Callable[[Connection, int], str]
"""Statements for a time; they say what they did."""
TOLERANCE_S = 300
"""The greatest difference between an event's time and ours."""
WHOLE = "BIF CLP DJF GNF JPY KMF KRW MGA PYG RWF VND VUV XAF XOF XPF"
PLACES = dict.fromkeys(WHOLE.split(), 0) | dict.fromkeys(("BHD", "JOD", "KWD", "OMR", "TND"), 3)
"""Decimal places of Stripe's amounts in currencies that do not have two."""
MAX_AMOUNT = 10**9
"""The largest payment, in the currency's smallest unit."""
PAYMENTS = (
    "checkout.session.completed",
    "checkout.session.async_payment_succeeded",
    "payment_intent.succeeded",
)
REFUND = "charge.refunded"


@dataclass(frozen=True)
class StripeConfig:
    """The signing secret of Stripe's webhook (whsec_...); without one, no payments are taken."""

    secret_env: str = "SHOESTRING_STRIPE_SECRET"
    """The environment variable with the secret."""
    secret_file: str = ""
    """A file with the secret, instead."""
    link: str = ""
    """A Payment Link of Stripe's, where people pay in: the account's page leads to it."""


@dataclass(frozen=True)
class Payments:
    """The payments that a service takes."""

    secret: str = field(repr=False)
    """The signing secret of the webhook."""
    link: str = ""

    def link_of(self, account_id: str) -> str | None:
        """The page where money is paid in for an account; None when there is none."""
        separator = "&" if "?" in self.link else "?"
        return f"{self.link}{separator}client_reference_id={account_id}" if self.link else None


class _Object(BaseModel):
    """The thing that an event is about: a checkout session, a payment intent or a charge."""

    id: str
    currency: str = ""
    metadata: dict[str, Any] | None = None
    client_reference_id: str | None = None
    """Of a session that began at a Payment Link: the account."""
    payment_intent: str | None = None
    payment_status: str = "paid"
    amount_total: int | None = None
    amount_received: int | None = None
    amount_refunded: int = 0


class _Data(BaseModel):
    object: dict[str, Any]


class _Event(BaseModel):
    id: str
    type: str
    data: _Data


def open_payments(config: StripeConfig) -> Payments | None:
    """The payments of a configuration; None without a signing secret. Raises ConfigError."""
    if config.link and not config.link.startswith("https://"):
        raise ConfigError(f"stripe.link = {config.link!r} must begin with https://")
    try:
        file = Path(config.secret_file) if config.secret_file else None
        secret = file.read_text().strip() if file else os.environ.get(config.secret_env)
    except OSError as error:
        raise ConfigError(f"stripe.secret_file {config.secret_file}: {error.strerror}") from None
    if config.link and not secret:
        raise ConfigError(f"stripe.link needs the webhook's signing secret in {config.secret_env}")
    return Payments(secret, config.link) if secret else None


def check_signature(header: str, body: bytes, secret: str, time_s: int) -> None:
    """Raise RequestError unless a body was signed with the secret, within the last minutes."""
    items = [item.strip().partition("=") for item in header.split(",")]
    stamp = next((value for name, _, value in items if name == "t"), "")
    digest = hmac.new(secret.encode(), stamp.encode() + b"." + body, hashlib.sha256).hexdigest().encode()
    signatures = [value.encode() for name, _, value in items if name == "v1"]
    is_signed = any(hmac.compare_digest(digest, signature) for signature in signatures)
    if not is_signed or not stamp.isdecimal() or abs(time_s - int(stamp)) > TOLERANCE_S:
        raise RequestError("invalid", "the signature is wrong or too old", field="Stripe-Signature")


def read_event(body: bytes, currency: str) -> Booking | None:
    """The booking of an event; None for one that moves no money here.

    Raises RequestError for a body of the wrong form, or money of another currency than the price list's.
    """
    try:
        event = _Event.model_validate_json(body)
        if event.type not in (*PAYMENTS, REFUND):
            return None
        thing = _Object.model_validate(event.data.object)
    except ValidationError:
        raise RequestError("invalid", "this is no event that Stripe describes") from None
    account_id = _account_id(thing)
    if event.type in PAYMENTS and (account_id is None or thing.payment_status != "paid"):
        return None  # a payment for something else, or one that is still to come
    if thing.currency.upper() != currency:
        raise RequestError(
            "invalid", f"the price list is in {currency}, not in {thing.currency.upper()[:10]}"
        )
    unit, payment = NANOS // 10 ** PLACES.get(currency, 2), _payment_id(thing)
    if event.type == REFUND:
        return lambda connection, time_s: _refund(connection, payment, thing.amount_refunded, unit, time_s)
    amount = thing.amount_received if thing.amount_total is None else thing.amount_total
    if amount is None or not 0 <= amount <= MAX_AMOUNT:
        raise RequestError("invalid", "this event has no amount that can be booked", field="amount")
    return lambda connection, time_s: _pay(connection, payment, account_id or "", amount * unit, time_s)


def _account_id(thing: _Object) -> str | None:
    """The account that a payment is for; None for a payment that is none of ours."""
    if "account_id" in (thing.metadata or {}):
        return str((thing.metadata or {})["account_id"])
    name = thing.client_reference_id or ""
    return name if name.startswith("acc_") else None


def _payment_id(thing: _Object) -> str:
    """The operation's id, the same for all events of one payment."""
    name = thing.payment_intent or thing.id
    return f"stripe:{name if len(name) <= 30 else hashlib.sha256(name.encode()).hexdigest()[:30]}"


def _pay(connection: Connection, payment: str, account_id: str, amount: int, time_s: int) -> str:
    """Add a payment, once: Stripe tells of one several times, by the session and by the intent."""
    if not connection.execute(select(accounts.c.id).where(accounts.c.id == account_id)).first():
        raise RequestError("invalid", f"there is no account {account_id[:40]!r}", field="metadata.account_id")
    is_new = add_funds(connection, payment, account_id, "top_up", amount, time_s)
    return f"{account_id} paid {decimal(amount)}" if is_new else f"{payment} was known"


def _refund(connection: Connection, payment: str, total: int, unit: int, time_s: int) -> str:
    """Take back what was refunded of a payment since the last such event, as far as it is there.

    `total` is of all refunds of the payment together, in the currency's smallest `unit`.
    """
    row = connection.execute(select(operations).where(operations.c.id == payment)).first()
    if row is None:
        return f"{payment} was not paid to an account here"
    mine = (operations.c.account_id == row.account_id) & operations.c.id.startswith(
        f"{payment}:refund:", autoescape=True
    )
    ids = [other.id for other in connection.execute(select(operations.c.id).where(mine))]
    before = max((int(name.rpartition(":")[2]) for name in ids), default=0)
    if total <= before:
        return f"{payment} was refunded before"
    present, due = balance(connection, row.account_id), (total - before) * unit
    amount = max(min(due, present.topped_up, present.available), 0)
    add_funds(connection, f"{payment}:refund:{total}", row.account_id, "top_up", -amount, time_s)
    if amount < due:
        log.error(
            "%s was refunded, but %s had spent %s of it", payment, row.account_id, decimal(due - amount)
        )
    return f"{row.account_id} gave back {decimal(amount)}"
