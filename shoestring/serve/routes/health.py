"""Routes that say how the service is: alive, ready, and in figures."""

from typing import Any, Literal

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse

from shoestring.engine.engine import Engine
from shoestring.serve.audience import Audience, audience
from shoestring.serve.backends.lazy import LazyBackend
from shoestring.serve.backends.local import LocalBackend
from shoestring.serve.backends.pool import PoolBackend
from shoestring.serve.dialects.schema import OpenAIError, Schema, errors
from shoestring.serve.prometheus import CONTENT_TYPE, metrics_text
from shoestring.serve.routes.parts import TheCaller, TheService
from shoestring.serve.service import Service
from shoestring.serve.traffic import Traffic

router = APIRouter(tags=["operation"])


class Health(Schema):
    """The health of the models."""

    status: Literal["ok", "failed"]
    dead: list[str]
    """Models that make no tokens any more."""
    servers: dict[str, str]
    """Servers of a model that answer, such as `1 of 2`; without those in this process."""


class Status(Schema):
    """The state of the service."""

    status: Literal["ready", "ending", "failed"]


@router.get("/health", responses={200: {"model": Health}, 503: {"model": Health}})
@audience(Audience.ANYONE)
async def health(service: TheService) -> Any:
    """Say whether every model still makes tokens: 503 when one does not."""
    dead = [name for name, backend in service.backends.items() if not backend.is_healthy]
    pools = [backend for backend in service.backends.values() if isinstance(backend, PoolBackend)]
    servers = {pool.card.id: f"{pool.num_up} of {len(pool.upstreams)}" for pool in pools}
    content = {"status": "failed" if dead else "ok", "dead": dead, "servers": servers}
    return JSONResponse(content, status_code=503 if dead else 200)


@router.get("/ready", responses={200: {"model": Status}, 503: {"model": Status}})
@audience(Audience.ANYONE)
async def ready(service: TheService) -> Any:
    """Say whether new requests are taken: 503 while the service ends, and when no model answers."""
    status = "ready" if any(backend.is_healthy for backend in service.backends.values()) else "failed"
    if service.is_draining:
        status = "ending"
    return JSONResponse({"status": status}, status_code=200 if status == "ready" else 503)


@router.get("/metrics", response_class=PlainTextResponse, responses=errors(OpenAIError))
@audience(Audience.KEY)
async def metrics(caller: TheCaller, service: TheService, request: Request) -> Response:
    """Show the figures of engines, servers, requests and the process in Prometheus's format."""
    traffic: Traffic = request.app.state.traffic
    return Response(metrics_text(engines(service)) + traffic.text(), media_type=CONTENT_TYPE)


def engines(service: Service) -> dict[str, Engine]:
    """The engines of the models that are in memory, by name."""
    local = {
        name: backend.local if isinstance(backend, LazyBackend) else backend
        for name, backend in service.backends.items()
    }
    return {name: backend.engine for name, backend in local.items() if isinstance(backend, LocalBackend)}
