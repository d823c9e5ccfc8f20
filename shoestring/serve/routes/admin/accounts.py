"""Routes for admins about accounts: their owners, limits, money, keys and sessions."""

import secrets
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from pydantic import Field
from sqlalchemy import Connection

from shoestring.serve.accounts import people
from shoestring.serve.accounts.people import Account
from shoestring.serve.admission.fair_queue import Priority
from shoestring.serve.audience import Audience, audience
from shoestring.serve.backends.errors import RequestError
from shoestring.serve.dialects.schema import OpenAIError, Schema, errors
from shoestring.serve.ledger.operations import Balance, add_funds, balance
from shoestring.serve.ledger.prices import Nanos, decimal, nanos
from shoestring.serve.routes.account.keys import KeyBody
from shoestring.serve.routes.parts import TheAccounts, TheCaller
from shoestring.serve.routes.sign_in import person

router = APIRouter(
    prefix="/admin/accounts",
    tags=["admin"],
    responses=errors(OpenAIError, {409: "Not now; the message says why."}),
)


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


@router.get("")
@audience(Audience.ADMIN)
async def list_accounts(
    caller: TheCaller,
    accounts: TheAccounts,
    search: Annotated[str, Query(max_length=254)] = "",
    offset: Annotated[int, Query(ge=0, le=10**9)] = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 1000,
) -> dict[str, Any]:
    """List accounts with their balances, the newest first: all, or those whose address or id has a text."""

    def read(connection: Connection) -> dict[str, Any]:
        present, total = people.list_accounts(connection, search, offset, limit)
        rows = [account_fields(account, balance(connection, account.id)) for account in present]
        return {"data": rows, "total": total}

    account: dict[str, Any] = await accounts.read(read)
    return account


@router.post("", status_code=201)
@audience(Audience.ADMIN)
async def create_account(body: AccountBody, caller: TheCaller, accounts: TheAccounts) -> dict[str, Any]:
    """Make an account for somebody, with a link by which a password is set."""
    account = await accounts.invite(body.email, body.role)
    link = await accounts.link("reset_password", account=account)
    await accounts.note(caller.account_id, "create_account", account.id, f"role={body.role}")
    return {**account_fields(account, Balance()), "link": link}


@router.patch("/{account_id}")
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
    changes = ", ".join(f"{name}={fields[name]}" for name in body.model_fields_set)
    await accounts.note(caller.account_id, "change_account", account_id, changes)
    return fields


@router.delete("/{account_id}/sessions", status_code=204)
@audience(Audience.ADMIN)
async def end_sessions(account_id: str, caller: TheCaller, accounts: TheAccounts) -> None:
    """End all sessions of an account."""
    await accounts.read(people.account_of, account_id)
    await accounts.change(people.end_sessions, account_id)
    await accounts.note(caller.account_id, "end_sessions", account_id)


@router.post("/{account_id}/credit")
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
    detail = f"{body.kind} {decimal(amount)} {body.note}".strip()
    if fields["is_new"]:
        await accounts.note(caller.account_id, "credit", account_id, detail)
    return fields


@router.post("/{account_id}/keys", status_code=201)
@audience(Audience.ADMIN)
async def create_key_for(
    account_id: str, body: KeyBody, caller: TheCaller, accounts: TheAccounts
) -> dict[str, str]:
    """Make an API key for somebody. Its text is in this answer and nowhere else."""
    await accounts.read(people.account_of, account_id)
    text = await accounts.add_key(account_id, body.settings(accounts.now_s()))
    await accounts.note(
        caller.account_id, "create_key", account_id, f"{text.split('-')[1]} scope={body.scope}"
    )
    return {"key": text}


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
