"""Routes about the codes of an authenticator app, which sign-in asks when they are switched on."""

from typing import Any

from fastapi import APIRouter, Request, Response

from shoestring.serve.accounts import codes, people
from shoestring.serve.accounts.people import Account
from shoestring.serve.accounts.qr import qr_path
from shoestring.serve.audience import Audience, audience
from shoestring.serve.backends.errors import RequestError
from shoestring.serve.dialects.schema import OpenAIError, Schema, errors
from shoestring.serve.routes.parts import TheAccounts, TheCaller
from shoestring.serve.routes.sign_in import ConfirmBody, Hidden, renew_all

router = APIRouter(prefix="/auth/codes", tags=["sign-in"], responses=errors(OpenAIError))


class CodeBody(Schema):
    """A code of the authenticator app."""

    code: Hidden


@router.post("")
@audience(Audience.ACCOUNT)
async def begin_codes(body: ConfirmBody, caller: TheCaller, accounts: TheAccounts) -> dict[str, Any]:
    """Give the secret for an authenticator app, and a QR code of it: an SVG path in a square of `size`.

    Codes are asked once one was sent to /auth/codes/confirm.
    """
    account = await accounts.sign_in.confirm(caller.account_id, body.password, body.code)
    nonce = codes.new_nonce()
    await accounts.change(people.change_account, account.id, totp_nonce=nonce, totp_step=None)
    generator = codes.totp(accounts.secret, nonce)
    uri = generator.provisioning_uri(name=account.email or account.id, issuer_name="shoestring")
    size, path = qr_path(uri)
    return {"secret": generator.secret, "uri": uri, "qr": {"size": size, "path": path}}


@router.post("/confirm")
@audience(Audience.ACCOUNT)
async def confirm_codes(
    body: CodeBody, request: Request, response: Response, caller: TheCaller, accounts: TheAccounts
) -> dict[str, list[str]]:
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
    await renew_all(request, response, accounts, account)
    await accounts.tell(account, "Codes of an authenticator app are asked now when you sign in.")
    return {"recovery_codes": texts}


@router.delete("", status_code=204)
@audience(Audience.ACCOUNT)
async def end_codes(
    body: ConfirmBody, request: Request, response: Response, caller: TheCaller, accounts: TheAccounts
) -> None:
    """Switch codes off."""
    account = await accounts.sign_in.confirm(caller.account_id, body.password, body.code)
    await accounts.change(people.change_account, account.id, totp_nonce=None, totp_step=None)
    await accounts.change(people.set_recovery_codes, account.id, [])
    await renew_all(request, response, accounts, account)
    await accounts.tell(account, "Codes of an authenticator app are not asked any more when you sign in.")
