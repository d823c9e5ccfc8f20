"""Routes for admins about the service itself: models and their servers, prices, the ledger's audit."""

from typing import Annotated, Any

from fastapi import APIRouter, Query

from shoestring.errors import ConfigError
from shoestring.serve.accounts.actions import list_actions
from shoestring.serve.audience import Audience, audience
from shoestring.serve.backends.errors import RequestError
from shoestring.serve.backends.lazy import LazyBackend
from shoestring.serve.backends.pool import PoolBackend
from shoestring.serve.dialects.schema import OpenAIError, errors
from shoestring.serve.hosting import Hosting
from shoestring.serve.ledger.audit import audit
from shoestring.serve.pages.status import model_status
from shoestring.serve.routes.account.terms import price_terms
from shoestring.serve.routes.parts import TheAccounts, TheCaller, TheHosting, TheService
from shoestring.serve.service import Service

router = APIRouter(prefix="/admin", tags=["admin"], responses=errors(OpenAIError))


@router.get("/models")
@audience(Audience.ADMIN)
async def list_models(caller: TheCaller, service: TheService) -> dict[str, Any]:
    """List the models with what they have to do, and the servers of those that are elsewhere."""
    return {"data": [_model_fields(service, name) for name in service.backends]}


@router.get("/prices")
@audience(Audience.ADMIN)
async def show_prices(caller: TheCaller, hosting: TheHosting) -> dict[str, Any]:
    """Show the price list that is in force, and where it comes from."""
    return _price_fields(hosting)


@router.post("/prices")
@audience(Audience.ADMIN)
async def read_prices(caller: TheCaller, hosting: TheHosting) -> dict[str, Any]:
    """Read the price list anew; one that cannot be read changes nothing."""
    try:
        hosting.read_prices()
    except ConfigError as error:
        raise RequestError("invalid", f"the old prices stay: {error}") from None
    await hosting.accounts.note(caller.account_id, "read_prices", detail=hosting.price_source)
    return _price_fields(hosting)


@router.get("/audit")
@audience(Audience.ADMIN)
async def audit_ledger(caller: TheCaller, accounts: TheAccounts) -> dict[str, Any]:
    """Check every identity of the ledger over the whole database."""
    return {"faults": await accounts.read(audit)}


@router.get("/log")
@audience(Audience.ADMIN)
async def show_log(
    caller: TheCaller,
    accounts: TheAccounts,
    before: Annotated[int, Query(ge=1, le=2**62)] | None = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
) -> dict[str, Any]:
    """Show what admins did, the newest first; `before` an id goes on."""
    return {"data": await accounts.read(list_actions, before, limit)}


def _price_fields(hosting: Hosting) -> dict[str, Any]:
    """The price list: amounts of the currency for a million tokens, by model."""
    prices = hosting.meter.prices
    models = {name: price_terms(prices, name).model_dump() for name in prices.models}
    return {"currency": prices.currency, "source": hosting.price_source or None, "models": models}


def _model_fields(service: Service, name: str) -> dict[str, Any]:
    """A model: its names, its state, and its servers."""
    backend = service.backends[name]
    servers = backend.upstreams if isinstance(backend, PoolBackend) else ()
    return {
        **model_status(service, name).model_dump(),
        "aliases": [alias for alias, model in service.aliases.items() if model == name],
        "max_model_len": backend.card.max_model_len,
        "is_loaded": backend.local is not None if isinstance(backend, LazyBackend) else None,
        "num_bytes": backend.model.num_bytes if isinstance(backend, LazyBackend) else None,
        "servers": [
            {
                "name": server.name,
                "weight": server.weight,
                "is_up": server.takes(name),
                "open_requests": server.open_requests,
                "num_failures": server.num_failures,
            }
            for server in servers
            if name in server.cards or not server.breaker.lets_requests
        ],
    }
