"""Routes by which people get in and out: sign-up, sign-in, sign-out, links, passwords, codes."""

from typing import Annotated, Any

from fastapi import APIRouter, Request, Response
from pydantic import Field

from shoestring.serve.accounts import codes, people
from shoestring.serve.accounts.accounts import Accounts
from shoestring.serve.accounts.authenticator import SESSION_COOKIE, cookie
from shoestring.serve.accounts.passwords import check_password
from shoestring.serve.accounts.people import DEVICE_S, SESSION_S, Account
from shoestring.serve.accounts.sign_in import Credentials, SignedIn
from shoestring.serve.admission.address import network_of
from shoestring.serve.audience import Audience, audience
from shoestring.serve.backends.errors import RequestError
from shoestring.serve.dialects.schema import OpenAIError, Schema, errors
from shoestring.serve.routes.parts import TheAccounts, TheCaller, TheGate

router = APIRouter(
    prefix="/auth", tags=["sign-in"], responses=errors(OpenAIError, {409: "This address has an account."})
)

DEVICE_COOKIE = "shoestring_device"
Text = Annotated[str, Field(max_length=1000)]


class SignUpBody(Schema):
    """A new account."""

    email: Text
    password: Text
    link: Text | None = None
    """The token of an invitation, or of the first admin's link."""
    proof: Annotated[str, Field(max_length=8192)] | None = None
    """The solution of a challenge, when registration needs one."""


class SignInBody(Schema):
    """The credentials of a person."""

    email: Text
    password: Text
    code: Text | None = None
    """Of the authenticator app, or a recovery code."""


class LinkBody(Schema):
    """The token of a link."""

    link: Text


class ResetBody(Schema):
    """A new password by a link."""

    link: Text
    password: Text


class EmailBody(Schema):
    """An address."""

    email: Text


class PasswordBody(Schema):
    """A new password, with the present one."""

    password: Text
    new_password: Text


class ConfirmBody(Schema):
    """The present password, said again for what must not happen by accident."""

    password: Text


class CodeBody(Schema):
    """A code of the authenticator app."""

    code: Text


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
        device=cookie(request.headers, DEVICE_COOKIE),
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
    set_cookies(request, response, signed_in)
    return person(signed_in.account)


@router.post("/sign-out", status_code=204)
@audience(Audience.ACCOUNT)
async def sign_out(request: Request, response: Response, caller: TheCaller, accounts: TheAccounts) -> None:
    """End this session."""
    if token := cookie(request.headers, SESSION_COOKIE):
        await accounts.change(people.end_session, accounts.sign_in.digest("sessions", token))
    response.delete_cookie(SESSION_COOKIE)


@router.post("/check-email", status_code=204)
@audience(Audience.ANYONE)
async def check_email(body: LinkBody, accounts: TheAccounts) -> None:
    """Confirm an address by the link that was sent to it."""
    row = await _use(accounts, body.link, "check_email")
    await accounts.change(people.change_account, row.account_id, email_checked_s=accounts.now_s())


@router.post("/forgotten", status_code=202)
@audience(Audience.ANYONE)
async def forgotten(body: EmailBody, accounts: TheAccounts) -> dict[str, str]:
    """Send a link for a new password. The answer is the same for an address that has no account."""
    account = await accounts.read(people.account_by_email, body.email.strip().lower())
    if account is not None:
        await accounts.mail_link("reset_password", account)
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
    await accounts.change(people.change_account, account_id, password_hash=password_hash)
    await accounts.change(people.end_sessions, account_id)


@router.post("/password", status_code=204)
@audience(Audience.ACCOUNT)
async def change_password(
    body: PasswordBody, request: Request, caller: TheCaller, accounts: TheAccounts
) -> None:
    """Set a new password; all other sessions end."""
    account = await accounts.sign_in.confirm_password(caller.account_id, body.password)
    check_password(body.new_password, email=account.email or "")
    password_hash = await accounts.sign_in.passwords.hash(body.new_password)
    await accounts.change(people.change_account, account.id, password_hash=password_hash)
    token = cookie(request.headers, SESSION_COOKIE)
    present = accounts.sign_in.digest("sessions", token) if token else None
    await accounts.change(people.end_sessions, account.id, but=present)


@router.post("/codes")
@audience(Audience.ACCOUNT)
async def begin_codes(body: ConfirmBody, caller: TheCaller, accounts: TheAccounts) -> dict[str, str]:
    """Give the secret for an authenticator app; codes are asked once one was sent to /auth/codes/confirm."""
    account = await accounts.sign_in.confirm_password(caller.account_id, body.password)
    nonce = codes.new_nonce()
    await accounts.change(people.change_account, account.id, totp_nonce=nonce, totp_step=None)
    generator = codes.totp(accounts.secret, nonce)
    uri = generator.provisioning_uri(name=account.email or account.id, issuer_name="shoestring")
    return {"secret": generator.secret, "uri": uri}


@router.post("/codes/confirm")
@audience(Audience.ACCOUNT)
async def confirm_codes(body: CodeBody, caller: TheCaller, accounts: TheAccounts) -> dict[str, list[str]]:
    """Switch codes on by a first one; the answer has the recovery codes, shown this once."""
    account: Account = await accounts.read(people.account_of, caller.account_id)
    step = None
    if account.totp_nonce is not None:
        step = codes.code_step(accounts.secret, account.totp_nonce, body.code, accounts.now_s(), None)
    if step is None:
        raise RequestError("invalid", "this code is wrong; does the app's clock go right?", field="code")
    texts = codes.new_recovery_codes()
    digests = [accounts.sign_in.digest("recovery codes", text) for text in texts]
    await accounts.change(people.change_account, account.id, totp_step=step)
    await accounts.change(people.set_recovery_codes, account.id, digests)
    return {"recovery_codes": texts}


@router.delete("/codes", status_code=204)
@audience(Audience.ACCOUNT)
async def end_codes(body: ConfirmBody, caller: TheCaller, accounts: TheAccounts) -> None:
    """Switch codes off."""
    account = await accounts.sign_in.confirm_password(caller.account_id, body.password)
    await accounts.change(people.change_account, account.id, totp_nonce=None, totp_step=None)
    await accounts.change(people.set_recovery_codes, account.id, [])


def person(account: Account) -> dict[str, Any]:
    """An account as its owner sees it."""
    return {
        "id": account.id,
        "email": account.email,
        "role": account.role,
        "created": account.created_s,
        "is_email_checked": account.email_checked_s is not None,
        "has_codes": account.has_codes,
    }


async def _use(accounts: Accounts, link: str, purpose: people.Purpose) -> Any:
    digest, now_s = accounts.sign_in.digest("links", link), accounts.now_s()
    return await accounts.database.write(
        lambda connection: people.use_link(connection, digest, (purpose,), now_s)
    )


def set_cookies(request: Request, response: Response, signed_in: SignedIn) -> None:
    """Set the session's cookie and the browser's: no script can read them, no other site can use them."""
    is_secure = request.url.scheme == "https"
    tokens = ((SESSION_COOKIE, signed_in.session, SESSION_S), (DEVICE_COOKIE, signed_in.device, DEVICE_S))
    for name, token, seconds in tokens:
        response.set_cookie(
            name, token, max_age=seconds, httponly=True, secure=is_secure, samesite="strict", path="/"
        )
