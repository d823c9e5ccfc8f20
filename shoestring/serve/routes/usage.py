"""Routes about money: the balance, usage by day, key, account and model, and the charge of one request."""

import csv
import io
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Header, Path, Query, Response
from fastapi.responses import JSONResponse

from shoestring.serve.audience import Audience, audience
from shoestring.serve.backends.errors import RequestError
from shoestring.serve.dialects.schema import OpenAIError, Responses, Schema, errors, whole
from shoestring.serve.ledger.meter import Meter
from shoestring.serve.ledger.operations import balance, operations_of
from shoestring.serve.ledger.prices import decimal
from shoestring.serve.ledger.usage import SUMS, Group, usage_of
from shoestring.serve.routes.parts import TheCaller, TheService

router = APIRouter(tags=["usage"], responses=errors(OpenAIError))

MAX_DAYS = 366


class BalanceInfo(Schema):
    """Money in one currency, as decimal text."""

    currency: str
    total_balance: str
    granted_balance: str
    topped_up_balance: str


class UserBalance(Schema):
    """The balance of an account, in DeepSeek's form."""

    is_available: bool
    """Whether requests are answered: money is left, or nothing costs any."""
    balance_infos: list[BalanceInfo]


class UsageRow(Schema):
    """Sums of one group; the fields that are not grouped by are absent."""

    day: str | None = None
    account_id: str | None = None
    key_id: str | None = None
    """Empty for requests of a person who was signed in."""
    model: str | None = None
    requests: int
    cached_tokens: int
    missed_tokens: int
    completion_tokens: int
    charge: str


class UsageReport(Schema):
    """Usage from one day to another, both included, in UTC."""

    currency: str
    data: list[UsageRow]


class RequestUsage(Schema):
    """The tokens and the charge of one request; prompts and answers are not kept."""

    request_id: str
    model: str
    time: int
    """Seconds since 1970."""
    is_settled: bool
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    charge: str
    """While it is not settled, 0."""
    currency: str


class Span:
    """The days of a report and its form, from the query."""

    def __init__(
        self,
        first: Annotated[date | None, Query(alias="from")] = None,
        last: Annotated[date | None, Query(alias="to")] = None,
        form: Annotated[Literal["json", "csv"] | None, Query(alias="format")] = None,
        accept: Annotated[str, Header(include_in_schema=False)] = "",
    ) -> None:
        """By default the last 30 days. Raises RequestError for days in the wrong order, or too many."""
        self.last = last or datetime.now(UTC).date()
        self.first = first or self.last - timedelta(days=29)
        self.is_csv = form == "csv" or (form is None and "text/csv" in accept)
        if not 0 <= (self.last - self.first).days < MAX_DAYS:
            sentence = f"from {self.first} to {self.last} is not 1 to {MAX_DAYS} days"
            raise RequestError("invalid", sentence, field="from")


def meter_of(service: TheService) -> Meter:
    """The meter of the service. Raises RequestError when nothing is charged here."""
    if service.meter is None:
        raise RequestError("not_found", "this service counts no usage: it is for one person on this machine")
    return service.meter


TheMeter = Annotated[Meter, Depends(meter_of)]
TheSpan = Annotated[Span, Depends()]
Groups = Annotated[list[Literal["day", "key", "model"]] | None, Query(max_length=3)]
AdminGroups = Annotated[list[Literal["day", "account", "key", "model"]] | None, Query(max_length=4)]
REPORT: Responses = {200: {"model": UsageReport, "content": {"text/csv": {"schema": {"type": "string"}}}}}


@router.get("/user/balance", responses=whole(UserBalance))
@audience(Audience.KEY)
async def show_balance(caller: TheCaller, service: TheService) -> dict[str, Any]:
    """Show the balance of the caller's account."""
    if service.meter is None:
        return {"is_available": True, "balance_infos": []}
    present, prices = await service.meter.read(balance, caller.account_id), service.meter.prices
    info = {
        "currency": prices.currency,
        "total_balance": decimal(present.total),
        "granted_balance": decimal(present.granted),
        "topped_up_balance": decimal(present.topped_up),
    }
    return {"is_available": present.available > 0 or prices.is_free, "balance_infos": [info]}


@router.get("/v1/usage", responses=REPORT)
@audience(Audience.ACCOUNT)
async def show_usage(caller: TheCaller, meter: TheMeter, span: TheSpan, group_by: Groups = None) -> Response:
    """Show what the caller's account used, by day, key or model, as JSON or CSV."""
    return await _report(meter, span, group_by, caller.account_id)


@router.get("/admin/usage", responses=REPORT)
@audience(Audience.ADMIN)
async def show_all_usage(
    caller: TheCaller,
    meter: TheMeter,
    span: TheSpan,
    group_by: AdminGroups = None,
    account_id: Annotated[str | None, Query(max_length=40)] = None,
) -> Response:
    """Show what all accounts used, or one of them."""
    return await _report(meter, span, group_by, account_id)


@router.get("/v1/usage/{request_id}", responses=whole(RequestUsage))
@audience(Audience.KEY)
async def show_request(
    request_id: Annotated[str, Path(max_length=40)], caller: TheCaller, meter: TheMeter
) -> dict[str, Any]:
    """Show what one request of the account was charged, by the x-request-id of its reply."""
    rows = await meter.read(operations_of, request_id, caller.account_id)
    if not rows:
        raise RequestError("not_found", "your account has no such request that was paid for")
    counts = ("prompt_tokens", "cached_tokens", "completion_tokens")
    return {
        "request_id": request_id,
        "model": rows[0].model,
        "time": rows[0].created_s,
        "is_settled": all(row.ended_s is not None for row in rows),
        **{name: sum(getattr(row, name) for row in rows) for name in counts},
        "charge": decimal(sum(row.charge for row in rows)),
        "currency": meter.prices.currency,
    }


async def _report(meter: Meter, span: Span, groups: Sequence[str] | None, account_id: str | None) -> Response:
    """The usage of a span, as JSON or CSV."""
    columns: dict[str, Group] = {"day": "day", "account": "account_id", "key": "key_id", "model": "model"}
    names = [columns[group] for group in dict.fromkeys(groups or ["day"])]
    rows = await meter.read(usage_of, span.first.isoformat(), span.last.isoformat(), names, account_id)
    rows = [{**row, "charge": decimal(row["charge"])} for row in rows]
    if not span.is_csv:
        return JSONResponse({"currency": meter.prices.currency, "data": rows})
    text = io.StringIO()
    writer = csv.DictWriter(text, [*names, *SUMS, "currency"])
    writer.writeheader()
    writer.writerows({**row, "currency": meter.prices.currency} for row in rows)
    return Response(text.getvalue(), media_type="text/csv")
