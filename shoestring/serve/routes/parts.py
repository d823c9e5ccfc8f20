"""Parts that all routes share: the service, the caller, and a header for fields that were ignored."""

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import Depends, Request, Security
from fastapi.security import APIKeyHeader, HTTPBearer

from shoestring.serve.accounts.accounts import Accounts
from shoestring.serve.backends.errors import RequestError
from shoestring.serve.caller import Caller
from shoestring.serve.gate.gate import Gate
from shoestring.serve.hosting import Hosting
from shoestring.serve.service import Service

# Dependencies are asynchronous although none waits: FastAPI runs others on a thread, 0.1 ms for each request.
IGNORED_FIELDS = "x-ignored-fields"
"""Header of a reply that names the request's fields that nobody knows."""


async def service_of(request: Request) -> Service:
    """The service that the app was built for."""
    service: Service = request.app.state.service
    return service


KEYS = (
    Security(HTTPBearer(auto_error=False, description="An API key.")),
    Security(APIKeyHeader(name="x-api-key", auto_error=False, description="An API key.")),
)
"""The two places of a key, for the OpenAPI document."""


async def caller_of(request: Request, _bearer: Any = KEYS[0], _header: Any = KEYS[1]) -> Caller:
    """The caller, whom the app identified before it read the body."""
    caller: Caller = request.scope["caller"]
    return caller


def ignored_header(names: Sequence[str]) -> dict[str, str]:
    """The header that names ignored fields, if there are any."""
    printable = [name for name in names if name.isascii() and name.isidentifier()]
    return {IGNORED_FIELDS: ", ".join(printable)[:1000]} if printable else {}


async def accounts_of(request: Request) -> Accounts:
    """The accounts of the service. Raises RequestError when it has none."""
    return (await hosting_of(request)).accounts


async def gate_of(request: Request) -> Gate:
    """The gate of registration. Raises RequestError when the service has none."""
    gate = (await service_of(request)).gate
    if gate is None:
        raise RequestError("not_found", "nobody registers with this service")
    return gate


async def hosting_of(request: Request) -> Hosting:
    """The parts of a service that is for others too. Raises RequestError when it is not."""
    hosting: Hosting | None = request.app.state.hosting
    if hosting is None:
        raise RequestError("not_found", "this service has no accounts: it is for one person on this machine")
    return hosting


TheHosting = Annotated[Hosting, Depends(hosting_of)]
TheAccounts = Annotated[Accounts, Depends(accounts_of)]
TheGate = Annotated[Gate, Depends(gate_of)]
TheCaller = Annotated[Caller, Depends(caller_of)]
TheService = Annotated[Service, Depends(service_of)]
