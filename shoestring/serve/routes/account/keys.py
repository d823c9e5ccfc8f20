"""Routes about one's own API keys."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter
from pydantic import Field

from shoestring.serve.accounts import keys
from shoestring.serve.accounts.keys import KeyInfo, KeySettings
from shoestring.serve.audience import Audience, audience
from shoestring.serve.backends.errors import RequestError
from shoestring.serve.dialects.schema import OpenAIError, Schema, errors
from shoestring.serve.ledger.prices import Nanos, decimal
from shoestring.serve.routes.parts import TheAccounts, TheCaller

router = APIRouter(
    prefix="/account/keys",
    tags=["account"],
    responses=errors(OpenAIError, {409: "Not now; the message says why."}),
)


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


@router.post("", status_code=201)
@audience(Audience.ACCOUNT)
async def create_key(body: KeyBody, caller: TheCaller, accounts: TheAccounts) -> dict[str, Any]:
    """Make an API key. Its text is in this answer and nowhere else."""
    if body.scope == "admin" and caller.scope != "admin":
        raise RequestError("permission", "only an admin can make such a key", field="scope")
    text = await accounts.add_key(caller.account_id, body.settings(accounts.now_s()))
    return {"key": text, "id": text.split("-")[1]}


@router.get("")
@audience(Audience.ACCOUNT)
async def list_keys(caller: TheCaller, accounts: TheAccounts) -> dict[str, Any]:
    """List the API keys of the account, without their secrets."""
    present = await accounts.read(keys.keys_of, caller.account_id)
    return {"data": [key_fields(key) for key in present]}


@router.delete("/{key_id}", status_code=204)
@audience(Audience.ACCOUNT)
async def revoke_key(key_id: str, caller: TheCaller, accounts: TheAccounts) -> None:
    """Revoke an API key, at once and for good."""
    await accounts.change(keys.revoke_key, key_id, caller.account_id, accounts.now_s())


def key_fields(key: KeyInfo) -> dict[str, Any]:
    """A key as its owner sees it."""
    fields = {**vars(key), **vars(key.settings)}
    del fields["settings"]
    amounts = {name: decimal(fields[name]) for name in ("day_cap", "month_cap") if fields[name] is not None}
    return {**fields, **amounts}
