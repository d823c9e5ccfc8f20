"""Routes of sign-in by another service: to its page, and back with a code."""

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from shoestring.serve.accounts.authenticator import cookie
from shoestring.serve.accounts.oidc import Provider, new_attempt, read_attempt
from shoestring.serve.admission.address import network_of
from shoestring.serve.audience import Audience, audience
from shoestring.serve.backends.errors import RequestError
from shoestring.serve.dialects.schema import OpenAIError, errors
from shoestring.serve.routes.parts import TheAccounts, TheCaller, TheGate
from shoestring.serve.routes.sign_in import renew_session

router = APIRouter(prefix="/auth/oidc", tags=["sign-in"], responses=errors(OpenAIError))

ATTEMPT_S = 600


@router.get("", status_code=303, response_class=RedirectResponse)
@audience(Audience.ANYONE)
async def begin(accounts: TheAccounts) -> Response:
    """Go to the other service's page."""
    attempt = new_attempt()
    response = RedirectResponse(await _provider(accounts.provider).address(attempt), status_code=303)
    response.set_cookie(
        accounts.attempt_cookie,
        attempt.text(),
        max_age=ATTEMPT_S,
        httponly=True,
        secure=accounts.is_https,
        samesite="lax",  # the browser comes back from another site
    )
    return response


@router.get("/callback", status_code=303, response_class=RedirectResponse)
@audience(Audience.ANYONE)
async def come_back(
    request: Request,
    caller: TheCaller,
    accounts: TheAccounts,
    gate: TheGate,
    code: str = "",
    state: str = "",
) -> Response:
    """Begin a session for the person whom the other service names; somebody new passes the gate."""
    attempt = read_attempt(cookie(request.headers, accounts.attempt_cookie) or "")
    identity = await _provider(accounts.provider).identity(attempt, code, state)
    response = RedirectResponse("/", status_code=303)
    try:
        account = await accounts.sign_in.account_of(identity)
        if account is None:
            gate.check(network_of(caller.address), is_vouched=True)
            account = await accounts.sign_in.sign_up_by(identity)
            gate.signals.new_account()
    except RequestError as error:
        if "text/html" not in request.headers.get("accept", ""):
            raise
        # For a person: the page says why, where registration stands and what to do.
        return RedirectResponse(
            "/#/sign-in/known" if error.kind == "conflict" else "/#/sign-up", status_code=303
        )
    await renew_session(request, response, accounts, await accounts.sign_in.begin_session(account))
    response.delete_cookie(accounts.attempt_cookie, secure=accounts.is_https, httponly=True)
    return response


def _provider(provider: Provider | None) -> Provider:
    if provider is None:
        raise RequestError("not_found", "nobody signs in by another service here")
    return provider
