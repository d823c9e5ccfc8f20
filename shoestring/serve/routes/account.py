"""Routes about one's own account: its data, API keys and sessions."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Request
from pydantic import Field

from shoestring.serve.accounts import keys, people
from shoestring.serve.accounts.authenticator import cookie
from shoestring.serve.accounts.keys import KeyInfo, KeySettings
from shoestring.serve.accounts.personal_data import erase, export
from shoestring.serve.audience import Audience, audience
from shoestring.serve.backends.errors import RequestError
from shoestring.serve.dialects.schema import OpenAIError, Schema, errors
from shoestring.serve.ledger.prices import Nanos, decimal
from shoestring.serve.routes.parts import TheAccounts, TheCaller
from shoestring.serve.routes.sign_in import ConfirmBody, person

router = APIRouter(
    prefix="/account",
    tags=["account"],
    responses=errors(OpenAIError, {409: "Not now; the message says why."}),
)


ID_LENGTH = 16
"""Digits of a session's digest by which its owner names it."""


class KeyBody(Schema):
    """A new API key."""

    name: Annotated[str, Field(max_length=100)] = ""
    scope: Literal["inference", "account", "admin"] = "inference"
    expires_in_days: Annotated[int, Field(ge=1, le=3650)] | None = None
    requests_per_minute: Annotated[int, Field(ge=1, le=10**9)] | None = None
    tokens_per_minute: Annotated[int, Field(ge=1, le=10**12)] | None = None
    day_cap: Nanos | None = None
    """An amount of the currency, like 1.50."""
    month_cap: Nanos | None = None

    def settings(self, now_s: int) -> KeySettings:
        """The settings of a key that is made now."""
        expires_s = now_s + self.expires_in_days * 86_400 if self.expires_in_days else None
        return KeySettings(expires_s=expires_s, **self.model_dump(exclude={"expires_in_days"}))


@router.get("")
@audience(Audience.ACCOUNT)
async def show_account(caller: TheCaller, accounts: TheAccounts) -> dict[str, Any]:
    """Show the account of the caller."""
    return person(await accounts.read(people.account_of, caller.account_id))


@router.post("/keys", status_code=201)
@audience(Audience.ACCOUNT)
async def create_key(body: KeyBody, caller: TheCaller, accounts: TheAccounts) -> dict[str, Any]:
    """Make an API key. Its text is in this answer and nowhere else."""
    if body.scope == "admin" and caller.scope != "admin":
        raise RequestError("permission", "only an admin can make such a key", field="scope")
    text = await accounts.add_key(caller.account_id, body.settings(accounts.now_s()))
    return {"key": text, "id": text.split("-")[1]}


@router.get("/keys")
@audience(Audience.ACCOUNT)
async def list_keys(caller: TheCaller, accounts: TheAccounts) -> dict[str, Any]:
    """List the API keys of the account, without their secrets."""
    present = await accounts.read(keys.keys_of, caller.account_id)
    return {"data": [key_fields(key) for key in present]}


@router.delete("/keys/{key_id}", status_code=204)
@audience(Audience.ACCOUNT)
async def revoke_key(key_id: str, caller: TheCaller, accounts: TheAccounts) -> None:
    """Revoke an API key, at once and for good."""
    await accounts.change(keys.revoke_key, key_id, caller.account_id, accounts.now_s())


@router.get("/sessions")
@audience(Audience.ACCOUNT)
async def list_sessions(request: Request, caller: TheCaller, accounts: TheAccounts) -> dict[str, Any]:
    """List the sessions of the account; the present one is this browser's."""
    token = cookie(request.headers, accounts.session_cookie)
    own = accounts.sign_in.digest("sessions", token) if token else None
    rows = await accounts.read(people.sessions_of, caller.account_id)
    data = [
        {"id": row.digest[:ID_LENGTH], "created": row.created_s, "seen": row.seen_s, "expires": row.expires_s}
        | {"is_present": row.digest == own}
        for row in rows
    ]
    return {"data": data}


@router.delete("/sessions/{session_id}", status_code=204)
@audience(Audience.ACCOUNT)
async def end_session(
    session_id: Annotated[str, Path(pattern=f"^[0-9a-f]{{{ID_LENGTH}}}$")],
    caller: TheCaller,
    accounts: TheAccounts,
) -> None:
    """End one session of the account."""
    await accounts.change(people.end_sessions, caller.account_id, session_id)


@router.delete("/sessions", status_code=204)
@audience(Audience.ACCOUNT)
async def end_sessions(caller: TheCaller, accounts: TheAccounts) -> None:
    """End all sessions of the account, this one too."""
    await accounts.change(people.end_sessions, caller.account_id)


@router.get("/export")
@audience(Audience.ACCOUNT)
async def export_data(caller: TheCaller, accounts: TheAccounts) -> dict[str, Any]:
    """Give everything that the service keeps about the account."""
    data: dict[str, Any] = await accounts.read(export, caller.account_id)
    return data


@router.post("/delete", status_code=204)
@audience(Audience.ACCOUNT)
async def delete_account(body: ConfirmBody, caller: TheCaller, accounts: TheAccounts) -> None:
    """Delete the account with all that belongs to it; its accounting stays, under a number alone."""
    account = await accounts.sign_in.confirm(caller.account_id, body.password, body.code)
    await accounts.change(erase, account.id)


def key_fields(key: KeyInfo) -> dict[str, Any]:
    """A key as its owner sees it."""
    fields = {**vars(key), **vars(key.settings)}
    del fields["settings"]
    amounts = {name: decimal(fields[name]) for name in ("day_cap", "month_cap") if fields[name] is not None}
    return {**fields, **amounts}
