"""The route of the OpenAPI document."""

from typing import Any

from fastapi import APIRouter, Request

from shoestring.serve.audience import Audience, audience
from shoestring.serve.openapi import openapi_document

router = APIRouter()


@router.get("/openapi.json", include_in_schema=False)
@audience(Audience.ANYONE)
async def show_document(request: Request) -> dict[str, Any]:
    """Show the OpenAPI document of this service."""
    return openapi_document(request.app)
