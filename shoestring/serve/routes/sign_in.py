"""Routes by which people get in and out: sign-up, sign-in, sign-out, links, passwords."""

from typing import Annotated, Any

from fastapi import APIRouter, BackgroundTasks, Request, Response
from pydantic import Field

from shoestring.serve.accounts import people
from shoestring.serve.accounts.accounts import Accounts
from shoestring.serve.accounts.authenticator import cookie
from shoestring.serve.accounts.passwords import check_password
from shoestring.serve.accounts.people import DEVICE_S, SESSION_S, Account
from shoestring.serve.accounts.sign_in import Credentials, SignedIn
from shoestring.serve.admission.address import network_of
from shoestring.serve.audience import Audience, audience
from shoestring.serve.backends.errors import RequestError
from shoestring.serve.dialects.schema import OpenAIError, Schema, errors
from shoestring.serve.hosting import Hosting
from shoestring.serve.routes.parts import TheAccounts, TheCaller, TheGate

router = APIRouter(
    prefix="/auth", tags=["sign-in"], responses=errors(OpenAIError, {409: "This address has an account."})
)

Text = Annotated[str, Field(max_length=1000)]
Hidden = Annotated[str, Field(max_length=1000, repr=False)]


class SignUpBody(Schema):
    """A new account."""

    email: Text
    password: Hidden
    link: Text | None = Field(default=None, repr=False)
    """The token of an invitation, or of the first admin's link."""
    proof: Annotated[str, Field(max_length=8192)] | None = None
    """The solution of a challenge, when registration needs one."""


class SignInBody(Schema):
    """The credentials of a person."""

    email: Text
    password: Hidden
    code: Text | None = Field(default=None, repr=False)
    """Of the authenticator app, or a recovery code."""


class LinkBody(Schema):
    """The token of a link."""

    link: Hidden


class ResetBody(Schema):
    """A new password by a link."""

    link: Hidden
    password: Hidden


class EmailBody(Schema):
    """An address."""

    email: Text


class ConfirmBody(Schema):
    """The present password, said again for what must not happen by accident or by a thief."""

    password: Hidden
    code: Text | None = Field(default=None, repr=False)
    """Of the authenticator app, or a recovery code, when the account has codes."""


class PasswordBody(ConfirmBody):
    """A new password, with the present one."""

    new_password: Hidden


@router.get("/here")
@audience(Audience.ANYONE)
async def who_is_here(request: Request) -> dict[str, Any]:
    """Say who is signed in, and by which ways one may: `provider` is another service's name.

    `has_chats` says whether this service keeps chats.
    """
    hosting: Hosting | None = request.app.state.hosting
    has_chats = request.app.state.chats is not None
    if hosting is None:
        return {"has_accounts": False, "person": None, "has_chats": has_chats}
    accounts = hosting.accounts
    ways = {
        "provider": accounts.provider.name if accounts.provider else None,
        "has_mail": bool(accounts.send),
        "has_chats": has_chats,
    }
    token = cookie(request.headers, accounts.session_cookie)
    caller = await accounts.authenticator.by_session(token) if token else None
    if caller is None:
        return {"has_accounts": True, "person": None, **ways}
    account = await accounts.read(people.account_of, caller.account_id)
    return {"has_accounts": True, "person": person(account), **ways}


@router.get("/challenge")
@audience(Audience.ANYONE)
async def challenge(gate: TheGate) -> dict[str, Any]:
    """Give a challenge for one sign-up, in ALTCHA's format."""
    return gate.challenge()


@router.post("/sign-up", status_code=201)
@audience(Audience.ANYONE)
async def sign_up(
    body: SignUpBody, caller: TheCaller, accounts: TheAccounts, gate: TheGate
) -> dict[str, Any]:
    """Make an account. The first admin's link passes the gate, whatever its state."""
    sign_in = accounts.sign_in
    is_first = body.link is not None and await sign_in.has_link(body.link, "first_admin")
    is_invited = body.link is not None and await sign_in.has_link(body.link, "invite")
    if not is_first:
        gate.check(network_of(caller.address), proof=body.proof, is_invited=is_invited)
    account = await sign_in.sign_up(body.email, body.password, body.link)
    gate.signals.new_account()
    if body.link is None:
        await accounts.mail_link("check_email", account)
    return person(account)


@router.post("/sign-in")
@audience(Audience.ANYONE)
async def sign_in(
    body: SignInBody,
    request: Request,
    response: Response,
    caller: TheCaller,
    accounts: TheAccounts,
    gate: TheGate,
) -> dict[str, Any]:
    """Begin a session; its cookie is for browsers."""
    credentials = Credentials(
        email=body.email,
        password=body.password,
        code=body.code,
        device=cookie(request.headers, accounts.device_cookie),
        address=caller.address,
        network=network_of(caller.address),
    )
    try:
        signed_in = await accounts.sign_in.sign_in(credentials)
    except RequestError as error:
        is_right = error.kind not in ("authentication", "rate_limit")
        gate.signals.sign_in(credentials.network, is_right=is_right)
        raise
    gate.signals.sign_in(credentials.network, is_right=True)
    if accounts.send is not None and signed_in.account.email_checked_s is None:
        await accounts.mail_link("check_email", signed_in.account)
        raise RequestError("permission", "confirm your address first; a new link has been sent to it")
    await renew_session(request, response, accounts, signed_in)
    return person(signed_in.account)


@router.post("/sign-out", status_code=204)
@audience(Audience.ACCOUNT)
async def sign_out(request: Request, response: Response, caller: TheCaller, accounts: TheAccounts) -> None:
    """End this session."""
    await _end_session(request, accounts)
    response.delete_cookie(accounts.session_cookie, secure=accounts.is_https, httponly=True)
    response.headers["Clear-Site-Data"] = '"cache"'  # not "storage": the person's chats are there


@router.post("/check-email", status_code=204)
@audience(Audience.ANYONE)
async def check_email(body: LinkBody, accounts: TheAccounts) -> None:
    """Confirm an address by the link that was sent to it; a new one is the account's from now on."""
    row = await _use(accounts, body.link, "check_email", "change_email")
    now_s = accounts.now_s()
    if row.purpose == "check_email":
        await accounts.change(people.change_account, row.account_id, email_checked_s=now_s)
        return
    account = await accounts.read(people.account_of, row.account_id)
    await accounts.change(people.change_email, row.account_id, row.email, now_s)
    await accounts.tell(
        account, f"Your account has the address {row.email} now; this one is not used any more."
    )


@router.post("/forgotten", status_code=202)
@audience(Audience.ANYONE)
async def forgotten(body: EmailBody, later: BackgroundTasks, accounts: TheAccounts) -> dict[str, str]:
    """Send a link for a new password. The answer, and its time, is the same for an unknown address."""
    account = await accounts.read(people.account_by_email, body.email.strip().lower())
    if account is not None:
        later.add_task(accounts.mail_link, "reset_password", account)
    by = (
        "a link is on its way" if accounts.send else "ask the operator for a link: this service sends no mail"
    )
    return {"status": f"if this address has an account, {by}"}


@router.post("/reset-password", status_code=204)
@audience(Audience.ANYONE)
async def reset_password(body: ResetBody, accounts: TheAccounts) -> None:
    """Set a new password by a link; all sessions end."""
    check_password(body.password, email="")
    password_hash = await accounts.sign_in.passwords.hash(body.password)
    account_id = (await _use(accounts, body.link, "reset_password")).account_id
    account = await accounts.change(people.change_account, account_id, password_hash=password_hash)
    await accounts.change(people.end_sessions, account_id)
    await accounts.tell(account, "The password of your account was set anew by a link.")


@router.post("/password", status_code=204)
@audience(Audience.ACCOUNT)
async def change_password(
    body: PasswordBody, request: Request, response: Response, caller: TheCaller, accounts: TheAccounts
) -> None:
    """Set a new password; all other sessions end, and this one gets a new token."""
    account = await accounts.sign_in.confirm(caller.account_id, body.password, body.code)
    check_password(body.new_password, email=account.email or "")
    password_hash = await accounts.sign_in.passwords.hash(body.new_password)
    await accounts.change(people.change_account, account.id, password_hash=password_hash)
    await renew_all(request, response, accounts, account)
    await accounts.tell(account, "The password of your account was changed.")


def person(account: Account) -> dict[str, Any]:
    """An account as its owner sees it."""
    return {
        "id": account.id,
        "email": account.email,
        "role": account.role,
        "created": account.created_s,
        "is_email_checked": account.email_checked_s is not None,
        "has_codes": account.has_codes,
        "has_password": account.password_hash is not None,
    }


async def _use(accounts: Accounts, link: str, *purposes: people.Purpose) -> Any:
    digest, now_s = accounts.sign_in.digest("links", link), accounts.now_s()
    return await accounts.database.write(
        lambda connection: people.use_link(connection, digest, purposes, now_s)
    )


async def renew_session(
    request: Request, response: Response, accounts: Accounts, signed_in: SignedIn
) -> None:
    """Begin a session in a browser and end the one that it had; the log names the account."""
    request.scope["account"] = signed_in.account.id
    await _end_session(request, accounts)
    _set_cookies(response, accounts, signed_in)


async def _end_session(request: Request, accounts: Accounts) -> None:
    """End the session that a request comes with, if any."""
    if token := cookie(request.headers, accounts.session_cookie):
        await accounts.change(people.end_session, accounts.sign_in.digest("sessions", token))


async def renew_all(request: Request, response: Response, accounts: Accounts, account: Account) -> None:
    """End all sessions of an account whose way in has changed; this browser gets a new one."""
    await accounts.change(people.end_sessions, account.id)
    if cookie(request.headers, accounts.session_cookie):
        _set_cookies(response, accounts, await accounts.sign_in.begin_session(account))


def _set_cookies(response: Response, accounts: Accounts, signed_in: SignedIn) -> None:
    """Set the session's cookie and the browser's: no script can read them, no other site can use them."""
    tokens = (
        (accounts.session_cookie, signed_in.session, SESSION_S),
        (accounts.device_cookie, signed_in.device, DEVICE_S),
    )
    for name, token, seconds in tokens:
        response.set_cookie(
            name, token, max_age=seconds, httponly=True, secure=accounts.is_https, samesite="strict", path="/"
        )
