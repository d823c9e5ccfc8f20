"""The route of what holds for a caller: prices of models, rates and caps."""

from fastapi import APIRouter

from shoestring.serve.audience import Audience, audience
from shoestring.serve.caller import Caller
from shoestring.serve.dialects.schema import OpenAIError, Schema, errors, whole
from shoestring.serve.ledger.prices import ModelPrice, PriceList, decimal
from shoestring.serve.routes.parts import TheCaller, TheService
from shoestring.serve.service import Service

router = APIRouter(tags=["usage"], responses=errors(OpenAIError))


class HoursTerms(Schema):
    """Hours, in UTC, at which a price is multiplied; an `end` before `start` is of the next day."""

    start: str
    end: str
    factor: str
    days: list[str]


class PriceTerms(Schema):
    """The price of a million tokens of a model, as decimal text."""

    cache_hit: str
    cache_miss: str
    output: str
    hours: list[HoursTerms]


class Terms(Schema):
    """Everything that holds for a caller; null is no limit."""

    currency: str | None
    """Null where nothing is charged."""
    prices: dict[str, PriceTerms]
    requests_per_minute: int | None
    tokens_per_minute: int | None
    concurrency: int | None
    """Requests under way at the same time."""
    day_cap: str | None
    """The most money in a day, in UTC."""
    month_cap: str | None


@router.get("/user/terms", responses=whole(Terms))
@audience(Audience.KEY)
async def show_terms(caller: TheCaller, service: TheService) -> Terms:
    """Show the prices, rates and caps that hold for the caller."""
    prices = PriceList() if service.meter is None else service.meter.prices
    caps = {period: _least_cap(caller, period) for period in ("day", "month")}
    return Terms(
        currency=None if prices.is_free else prices.currency,
        prices={} if prices.is_free else {name: price_terms(prices, name) for name in service.backends},
        requests_per_minute=_limit(service, "requests_per_minute", caller.requests_per_minute),
        tokens_per_minute=_limit(service, "tokens_per_minute", caller.tokens_per_minute),
        concurrency=_limit(service, "concurrency", caller.max_concurrency),
        day_cap=caps["day"],
        month_cap=caps["month"],
    )


def price_terms(prices: PriceList, model: str) -> PriceTerms:
    """The price of a model in a list."""
    price = prices.models.get(model) or prices.models.get("*") or ModelPrice()
    hours = [
        HoursTerms(
            start=f"{each.start:%H:%M}",
            end=f"{each.end:%H:%M}",
            factor=str(each.factor),
            days=list(each.days),
        )
        for each in price.hours
    ]
    return PriceTerms(
        cache_hit=decimal(price.cache_hit),
        cache_miss=decimal(price.cache_miss),
        output=decimal(price.output),
        hours=hours,
    )


def _limit(service: Service, name: str, own: int | None) -> int | None:
    """A limit of the caller's own, else everyone's."""
    if own is not None or service.admission is None:
        return own
    everyone: float | None = getattr(service.admission.limits, name)
    return None if everyone is None else int(everyone)


def _least_cap(caller: Caller, period: str) -> str | None:
    amounts = [cap.amount for cap in caller.caps if cap.period == period]
    return decimal(min(amounts)) if amounts else None
