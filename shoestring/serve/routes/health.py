"""Routes that say how the service is."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends
from fastapi.responses import JSONResponse

from shoestring.serve.audience import Audience, audience
from shoestring.serve.routes.parts import service_of
from shoestring.serve.service import Service

router = APIRouter(tags=["operation"])


@router.get("/health")
@audience(Audience.ANYONE)
async def health(service: Annotated[Service, Depends(service_of)]) -> Any:
    """Say whether every model still makes tokens: 503 when one does not."""
    dead = [name for name, backend in service.backends.items() if not backend.is_healthy]
    return JSONResponse(
        {"status": "failed" if dead else "ok", "dead": dead}, status_code=503 if dead else 200
    )
