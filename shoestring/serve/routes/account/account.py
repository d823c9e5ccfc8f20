"""Routes about one's own account: its data and its sessions."""

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request, Response
from sqlalchemy import Table

from shoestring.serve.accounts import people
from shoestring.serve.accounts.accounts import Accounts
from shoestring.serve.accounts.authenticator import cookie
from shoestring.serve.accounts.personal_data import CHAT_TABLES, chat_keys, chat_rows, erase, export
from shoestring.serve.audience import Audience, audience
from shoestring.serve.dialects.schema import OpenAIError, errors, whole
from shoestring.serve.routes.long_json import Items, long_object
from shoestring.serve.routes.page.answers import TheAnswers
from shoestring.serve.routes.parts import TheAccounts, TheCaller, TheHosting
from shoestring.serve.routes.sign_in import ConfirmBody, person

router = APIRouter(
    prefix="/account",
    tags=["account"],
    responses=errors(OpenAIError, {409: "Not now; the message says why."}),
)


ROWS = 20
"""Rows of chats that are in memory at once."""
ID_LENGTH = 16
"""Digits of a session's digest by which its owner names it."""


@router.get("")
@audience(Audience.ACCOUNT)
async def show_account(caller: TheCaller, accounts: TheAccounts, hosting: TheHosting) -> dict[str, Any]:
    """Show the account of the caller; money is paid in at `payment_link`, if there is one."""
    account = await accounts.read(people.account_of, caller.account_id)
    payments = hosting.payments
    return {**person(account), "payment_link": payments.link_of(account.id) if payments else None}


@router.get("/sessions")
@audience(Audience.ACCOUNT)
async def list_sessions(request: Request, caller: TheCaller, accounts: TheAccounts) -> dict[str, Any]:
    """List the sessions of the account; the present one is this browser's."""
    own = _own_session(request, accounts)
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
async def end_sessions(
    request: Request, caller: TheCaller, accounts: TheAccounts, keep_present: bool = False
) -> None:
    """End all sessions of the account; with `keep_present` this browser's goes on."""
    own = _own_session(request, accounts)
    if keep_present and own is not None:
        await accounts.change(people.end_other_sessions, caller.account_id, own)
    else:
        await accounts.change(people.end_sessions, caller.account_id)


@router.get("/export", response_class=Response, responses=whole(dict[str, Any]))
@audience(Audience.ACCOUNT)
async def export_data(caller: TheCaller, accounts: TheAccounts) -> Response:
    """Give everything that the service keeps about the account."""
    data: dict[str, Any] = await accounts.read(export, caller.account_id)
    own = {table: await accounts.read(chat_keys, caller.account_id, table) for table in CHAT_TABLES}
    return long_object(data, {table.name: _rows(accounts, table, own[table]) for table in own})


@router.post("/delete", status_code=204)
@audience(Audience.ACCOUNT)
async def delete_account(
    body: ConfirmBody, caller: TheCaller, accounts: TheAccounts, answers: TheAnswers
) -> None:
    """Delete the account with all that belongs to it; its accounting stays, under a number alone."""
    account = await accounts.sign_in.confirm(caller.account_id, body.password, body.code)
    await accounts.change(erase, account.id)
    answers.forget(account.id)


def _own_session(request: Request, accounts: Accounts) -> str | None:
    """The digest of the session that a request comes with."""
    token = cookie(request.headers, accounts.session_cookie)
    return accounts.sign_in.digest("sessions", token) if token else None


async def _rows(accounts: Accounts, table: Table, row_keys: Sequence[tuple[Any, ...]]) -> Items:
    """The rows of a table, a few at a time."""
    for begin in range(0, len(row_keys), ROWS):
        for row in await accounts.read(chat_rows, table, row_keys[begin : begin + ROWS]):
            yield row
