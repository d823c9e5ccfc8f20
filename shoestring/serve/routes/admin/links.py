"""Routes for admins about one-time links: invitations, and links for a new password."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path

from shoestring.serve.accounts import people
from shoestring.serve.audience import Audience, audience
from shoestring.serve.backends.errors import RequestError
from shoestring.serve.dialects.schema import OpenAIError, Schema, errors
from shoestring.serve.routes.account.account import ID_LENGTH
from shoestring.serve.routes.parts import TheAccounts, TheCaller

router = APIRouter(
    prefix="/admin", tags=["admin"], responses=errors(OpenAIError, {409: "Not now; the message says why."})
)


class LinkBody(Schema):
    """A one-time link to hand to somebody."""

    purpose: Literal["invite", "reset_password"]
    account_id: str | None = None
    """The account whose password is reset."""


@router.post("/links", status_code=201)
@audience(Audience.ADMIN)
async def create_link(body: LinkBody, caller: TheCaller, accounts: TheAccounts) -> dict[str, str]:
    """Make a one-time link: an invitation for a week, or for a new password within an hour."""
    account = None
    if body.purpose == "reset_password":
        if body.account_id is None:
            raise RequestError("invalid", "whose password? name the account", field="account_id")
        account = await accounts.read(people.account_of, body.account_id)
    link = await accounts.link(body.purpose, account=account)
    await accounts.note(caller.account_id, "create_link", body.account_id, body.purpose)
    return {"link": link}


@router.get("/links")
@audience(Audience.ADMIN)
async def list_links(caller: TheCaller, accounts: TheAccounts) -> dict[str, Any]:
    """List the one-time links that can still be used, without their tokens."""
    rows = await accounts.read(people.links_of_admins, accounts.now_s())
    names = ("purpose", "email", "account_id", "expires_s")
    return {"data": [{"id": row["digest"][:ID_LENGTH]} | {name: row[name] for name in names} for row in rows]}


@router.delete("/links/{link_id}", status_code=204)
@audience(Audience.ADMIN)
async def delete_link(
    link_id: Annotated[str, Path(pattern=f"^[0-9a-f]{{{ID_LENGTH}}}$")],
    caller: TheCaller,
    accounts: TheAccounts,
) -> None:
    """Take a one-time link back."""
    await accounts.change(people.delete_link, link_id)
    await accounts.note(caller.account_id, "delete_link", detail=link_id)
