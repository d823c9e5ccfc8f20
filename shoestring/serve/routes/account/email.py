"""The route by which one's account gets another address."""

from fastapi import APIRouter

from shoestring.serve.accounts import people
from shoestring.serve.accounts.sign_in import checked_email
from shoestring.serve.audience import Audience, audience
from shoestring.serve.backends.errors import RequestError
from shoestring.serve.dialects.schema import OpenAIError, errors
from shoestring.serve.routes.parts import TheAccounts, TheCaller
from shoestring.serve.routes.sign_in import ConfirmBody, Text

router = APIRouter(
    prefix="/auth", tags=["sign-in"], responses=errors(OpenAIError, {409: "This address has an account."})
)


class NewEmailBody(ConfirmBody):
    """A new address, with the present password."""

    email: Text


@router.post("/email")
@audience(Audience.ACCOUNT)
async def change_email(body: NewEmailBody, caller: TheCaller, accounts: TheAccounts) -> dict[str, bool]:
    """Give the account another address: at once, or where mail is sent, when a link in one is opened."""
    account = await accounts.sign_in.confirm(caller.account_id, body.password, body.code)
    email = checked_email(body.email)
    if await accounts.read(people.account_by_email, email) is not None:
        raise RequestError("conflict", "this address has an account", field="email")
    if accounts.send is None:
        await accounts.change(people.change_email, account.id, email, None)
    else:
        await accounts.mail_link("change_email", account, email)
    return {"is_changed": accounts.send is None}
