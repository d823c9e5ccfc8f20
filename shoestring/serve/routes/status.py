"""Routes of the public status: the page, its figures as JSON, and all incidents."""

import base64
import hashlib
import re
import time
from functools import cache
from pathlib import Path

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse
from jinja2 import Environment, StrictUndefined, Template

from shoestring.serve.audience import Audience, audience
from shoestring.serve.dialects.schema import Schema
from shoestring.serve.gate.records import Incident
from shoestring.serve.pages.status import IncidentStatus, ServiceStatus, incident_status, service_status
from shoestring.serve.pages.tally import Tally
from shoestring.serve.routes.parts import TheService
from shoestring.serve.service import Service

router = APIRouter(tags=["status"])

PAGE = Path(__file__).parents[1] / "pages" / "status.html"
NUM_SHOWN = 5
"""Incidents on the page, beside those that last."""


class Incidents(Schema):
    """The incidents, the newest first."""

    incidents: list[IncidentStatus]


@router.get(
    "/status", response_model=ServiceStatus, responses={200: {"content": {"text/html": {"schema": {}}}}}
)
@audience(Audience.ANYONE)
async def show_status(request: Request, service: TheService) -> Response | ServiceStatus:
    """Show how the service is: as a page for browsers, as JSON for programs."""
    tally: Tally = request.app.state.tally
    all_incidents = await _incidents(service)
    lasting = [incident for incident in all_incidents if incident.end_s is None]
    others = [incident for incident in all_incidents if incident.end_s is not None]
    status = service_status(service, service.gate, tally, [*lasting, *others[:NUM_SHOWN]], time.time())
    if "text/html" not in request.headers.get("accept", ""):
        return status
    return HTMLResponse(_page().render(status=status), headers=_headers())


@router.get("/incidents")
@audience(Audience.ANYONE)
async def list_incidents(service: TheService) -> Incidents:
    """List incidents, with every note on them."""
    return Incidents(incidents=[incident_status(incident) for incident in await _incidents(service)])


async def _incidents(service: Service) -> list[Incident]:
    return [] if service.gate is None else await service.gate.incidents()


@cache
def _page() -> Template:
    """The page, whose values are escaped: reasons and notes are text that people wrote."""
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["moment"] = lambda text: text.replace("T", " ").removesuffix("Z")
    return environment.from_string(PAGE.read_text(encoding="utf-8"))


@cache
def _headers() -> dict[str, str]:
    """Headers that let the page have its own style and nothing else."""
    style = re.search(r"<style>(.*?)</style>", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert style is not None
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; frame-ancestors 'none'"
    return {
        "Content-Security-Policy": f"{policy}; form-action 'none'",
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
        "Vary": "Accept",
    }
