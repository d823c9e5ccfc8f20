"""Audiences: who may call a route. Each route declares one, and the service does not start without."""

from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Any, TypeVar

from fastapi import APIRouter
from fastapi.routing import APIRoute

Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])


class Audience(StrEnum):
    """The callers of a route; without accounts, whoever reaches the port is all of them."""

    ANYONE = "anyone"
    """Anyone who reaches the port."""
    KEY = "key"
    """The owner of an API key, or a person who is signed in."""
    ACCOUNT = "account"
    """A person who is signed in, or the owner of a key that may manage the account."""
    ADMIN = "admin"
    """An admin of the service."""


def audience(who: Audience) -> Callable[[Endpoint], Endpoint]:
    """Declare who may call an endpoint."""

    def declare(endpoint: Endpoint) -> Endpoint:
        endpoint.audience = who  # type: ignore[attr-defined]
        return endpoint

    return declare


def audiences(routers: Sequence[APIRouter]) -> dict[tuple[str, str], Audience]:
    """The audience of each method and path. Raises TypeError for a route without one."""
    result: dict[tuple[str, str], Audience] = {}
    for route in (route for router in routers for route in router.routes):
        who = getattr(getattr(route, "endpoint", None), "audience", None)
        if not isinstance(route, APIRoute) or who is None:
            raise TypeError(f"the route {getattr(route, 'path', route)} does not say who may call it")
        result |= {(method, route.path): who for method in route.methods or ()}
    return result
