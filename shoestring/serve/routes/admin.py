"""Routes for admins: people, credit, links, the gate, incidents, prices, and the audit of the ledger."""

import secrets
from typing import Annotated, Any, Literal

from fastapi import APIRouter
from pydantic import Field
from sqlalchemy import Connection

from shoestring.serve.accounts import people
from shoestring.serve.accounts.people import Account
from shoestring.serve.admission.fair_queue import Priority
from shoestring.serve.audience import Audience, audience
from shoestring.serve.backends.errors import RequestError
from shoestring.serve.dialects.schema import OpenAIError, Schema, errors
from shoestring.serve.gate.records import Note
from shoestring.serve.gate.states import State
from shoestring.serve.ledger.audit import audit
from shoestring.serve.ledger.operations import Balance, add_funds, balance
from shoestring.serve.ledger.prices import Nanos, decimal, nanos
from shoestring.serve.routes.account import KeyBody
from shoestring.serve.routes.parts import TheAccounts, TheCaller, TheGate, TheService
from shoestring.serve.routes.sign_in import person

router = APIRouter(
    prefix="/admin", tags=["admin"], responses=errors(OpenAIError, {409: "Not now; the message says why."})
)

Line = Annotated[str, Field(min_length=1, max_length=200)]


class AccountBody(Schema):
    """A new account, whose owner sets a password by a link."""

    email: Annotated[str, Field(max_length=254)]
    role: Literal["user", "admin"] = "user"


class AccountChange(Schema):
    """Changes to an account; a field that is absent stays, null takes a limit away."""

    role: Literal["user", "admin"] | None = None
    is_disabled: bool | None = None
    priority: Priority | None = None
    weight: Annotated[int, Field(ge=1, le=1000)] | None = None
    max_concurrency: Annotated[int, Field(ge=0, le=10**6)] | None = None
    requests_per_minute: Annotated[int, Field(ge=1, le=10**9)] | None = None
    tokens_per_minute: Annotated[int, Field(ge=1, le=10**12)] | None = None
    day_cap: Nanos | None = None
    """An amount of the currency, like 1.50."""
    month_cap: Nanos | None = None


class CreditBody(Schema):
    """Money for an account."""

    amount: Annotated[str, Field(max_length=30)]
    """A decimal amount; a negative one takes money back."""
    kind: Literal["grant", "top_up"] = "grant"
    note: Annotated[str, Field(max_length=200)] = ""
    operation_id: Annotated[str, Field(pattern="^[A-Za-z0-9_.:-]{8,60}$")] | None = None
    """The same id again adds nothing, so a request may be repeated."""


class LinkBody(Schema):
    """A one-time link to hand to somebody."""

    purpose: Literal["invite", "reset_password"]
    account_id: str | None = None
    """The account whose password is reset."""


class GateBody(Schema):
    """A state of registration to hold whatever is measured; null lets go."""

    state: State | None
    reason: Line


class IncidentBody(Schema):
    """An incident, or a further note on one."""

    text: Annotated[str, Field(min_length=1, max_length=2000)]
    number: Annotated[int, Field(ge=1, le=2**31)] | None = None
    """The incident that the note is on; without it a new one begins."""
    is_end: bool = False


@router.get("/accounts")
@audience(Audience.ADMIN)
async def list_accounts(caller: TheCaller, accounts: TheAccounts) -> dict[str, Any]:
    """List the newest accounts with their balances."""

    def read(connection: Connection) -> list[dict[str, Any]]:
        present = people.list_accounts(connection)
        return [account_fields(account, balance(connection, account.id)) for account in present]

    return {"data": await accounts.read(read)}


@router.post("/accounts", status_code=201)
@audience(Audience.ADMIN)
async def create_account(body: AccountBody, caller: TheCaller, accounts: TheAccounts) -> dict[str, Any]:
    """Make an account for somebody, with a link by which a password is set."""
    account = await accounts.invite(body.email, body.role)
    link = await accounts.link("reset_password", account=account)
    return {**account_fields(account, Balance()), "link": link}


@router.patch("/accounts/{account_id}")
@audience(Audience.ADMIN)
async def change_account(
    account_id: str, body: AccountChange, caller: TheCaller, accounts: TheAccounts
) -> dict[str, Any]:
    """Change the role, the priority, the limits or the state of an account."""
    values = body.model_dump(exclude_unset=True)
    if any(values.get(name, "") is None for name in ("role", "priority", "weight", "is_disabled")):
        raise RequestError("invalid", "role, priority, weight and is_disabled cannot be null")
    if "is_disabled" in values:
        values["disabled_s"] = accounts.now_s() if values.pop("is_disabled") else None

    def change(connection: Connection) -> dict[str, Any]:
        if values:
            people.change_account(connection, account_id, **values)
        account = people.account_of(connection, account_id)
        if not people.has_admin(connection):
            raise RequestError("conflict", "this is the last admin; make another one first")
        if account.disabled_s is not None:
            people.end_sessions(connection, account_id)
        return account_fields(account, balance(connection, account_id))

    fields: dict[str, Any] = await accounts.change(change)
    return fields


@router.delete("/accounts/{account_id}/sessions", status_code=204)
@audience(Audience.ADMIN)
async def end_sessions(account_id: str, caller: TheCaller, accounts: TheAccounts) -> None:
    """End all sessions of an account."""
    await accounts.read(people.account_of, account_id)
    await accounts.change(people.end_sessions, account_id)


@router.post("/accounts/{account_id}/credit")
@audience(Audience.ADMIN)
async def add_credit(
    account_id: str, body: CreditBody, caller: TheCaller, accounts: TheAccounts
) -> dict[str, Any]:
    """Give an account money, or take some back."""
    try:
        amount = nanos(body.amount)
    except ValueError as error:
        raise RequestError("invalid", str(error), field="amount") from None
    operation_id = body.operation_id or f"op_{secrets.token_hex(12)}"
    note = f"{caller.account_id}: {body.note}"

    def add(connection: Connection) -> dict[str, Any]:
        account = people.account_of(connection, account_id)
        is_new = add_funds(connection, operation_id, account_id, body.kind, amount, accounts.now_s(), note)
        fields = account_fields(account, balance(connection, account_id))
        return {**fields, "operation_id": operation_id, "is_new": is_new}

    fields: dict[str, Any] = await accounts.change(add)
    return fields


@router.post("/accounts/{account_id}/keys", status_code=201)
@audience(Audience.ADMIN)
async def create_key_for(
    account_id: str, body: KeyBody, caller: TheCaller, accounts: TheAccounts
) -> dict[str, str]:
    """Make an API key for somebody. Its text is in this answer and nowhere else."""
    await accounts.read(people.account_of, account_id)
    return {"key": await accounts.add_key(account_id, body.settings(accounts.now_s()))}


@router.post("/links", status_code=201)
@audience(Audience.ADMIN)
async def create_link(body: LinkBody, caller: TheCaller, accounts: TheAccounts) -> dict[str, str]:
    """Make a one-time link: an invitation for a week, or for a new password within an hour."""
    account = None
    if body.purpose == "reset_password":
        if body.account_id is None:
            raise RequestError("invalid", "whose password? name the account", field="account_id")
        account = await accounts.read(people.account_of, body.account_id)
    return {"link": await accounts.link(body.purpose, account=account)}


@router.get("/gate")
@audience(Audience.ADMIN)
async def show_gate(caller: TheCaller, gate: TheGate) -> dict[str, Any]:
    """Show the state of registration and its last changes."""
    now = gate.now
    changes = await gate.records.changes(100)
    fields = {"state": now.state, "pin": now.pin, "since": now.since_s, "reason": now.reason}
    return {**fields, "changes": [vars(change) for change in changes]}


@router.post("/gate")
@audience(Audience.ADMIN)
async def pin_gate(body: GateBody, caller: TheCaller, gate: TheGate) -> dict[str, Any]:
    """Hold registration in a state, or let go."""
    await gate.pin(body.state, body.reason, caller.account_id)
    return {"state": gate.now.state, "pin": gate.now.pin}


@router.post("/incidents", status_code=201)
@audience(Audience.ADMIN)
async def write_incident(body: IncidentBody, caller: TheCaller, gate: TheGate) -> dict[str, int]:
    """Begin an incident on the status page, add a note to one, or end it."""
    now_s, number = gate.now_s(), body.number
    if number is None:
        return {"number": await gate.records.begin_incident(now_s, body.text, caller.account_id)}
    kind: Literal["end", "update"] = "end" if body.is_end else "update"
    note = Note(incident=number, time_s=now_s, kind=kind, text=body.text, actor=caller.account_id)
    await gate.records.add_note(note)
    return {"number": number}


@router.get("/prices")
@audience(Audience.ADMIN)
async def show_prices(caller: TheCaller, service: TheService) -> dict[str, Any]:
    """Show the price list that is in force."""
    if service.meter is None:
        raise RequestError("not_found", "this service has no prices")
    prices = service.meter.prices
    models = {name: price.model_dump(mode="json") for name, price in prices.models.items()}
    return {"currency": prices.currency, "unit": "nanos for a million tokens", "models": models}


@router.get("/audit")
@audience(Audience.ADMIN)
async def audit_ledger(caller: TheCaller, accounts: TheAccounts) -> dict[str, Any]:
    """Check every identity of the ledger over the whole database."""
    return {"faults": await accounts.read(audit)}


def account_fields(account: Account, money: Balance) -> dict[str, Any]:
    """An account as admins see it."""
    names = ("priority", "weight", "max_concurrency", "requests_per_minute", "tokens_per_minute")
    caps = {name: getattr(account, name) for name in ("day_cap", "month_cap")}
    amounts = {"granted": money.granted, "topped_up": money.topped_up, "held": money.held}
    return {
        **person(account),
        **{name: getattr(account, name) for name in names},
        **{name: None if amount is None else decimal(amount) for name, amount in caps.items()},
        "is_disabled": account.disabled_s is not None,
        "balance": {name: decimal(amount) for name, amount in amounts.items()},
    }
