"""The route that Stripe tells of payments: top-ups of accounts, and refunds."""

import logging
import time
from typing import Annotated, Literal

from fastapi import APIRouter, Header, Request
from sqlalchemy import Connection

from shoestring.serve.audience import Audience, audience
from shoestring.serve.backends.errors import RequestError
from shoestring.serve.dialects.schema import OpenAIError, Schema, errors, whole
from shoestring.serve.ledger.stripe import check_signature, read_event
from shoestring.serve.routes.parts import hosting_of

log = logging.getLogger(__name__)

router = APIRouter(tags=["payments"], responses=errors(OpenAIError))

Signature = Annotated[str, Header(alias="stripe-signature")]
MAX_BYTES = 1 << 20


class Receipt(Schema):
    """An event that has arrived for good."""

    status: Literal["ok"] = "ok"


@router.post("/webhooks/stripe", responses=whole(Receipt))
@audience(Audience.ANYONE)
async def take_event(
    request: Request, signature: Annotated[str, Header(alias="stripe-signature")] = ""
) -> Receipt:
    """Take an event that Stripe has signed; one that comes again changes nothing."""
    hosting = await hosting_of(request)
    if hosting.payments is None:
        raise RequestError("not_found", "this service takes no payments")
    body = await request.body()
    if len(body) > MAX_BYTES:
        raise RequestError("too_large", f"an event has at most {MAX_BYTES >> 20} MiB")
    now_s = int(time.time())
    check_signature(signature, body, hosting.payments.secret, now_s)
    work = read_event(body, hosting.meter.prices.currency)
    if work is not None:

        def book(connection: Connection) -> str:
            return work(connection, now_s)

        log.info("%s", await hosting.accounts.database.write(book))
    return Receipt()
