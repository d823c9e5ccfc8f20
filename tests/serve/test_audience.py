import pytest
from fastapi import APIRouter

from shoestring.serve.app import ROUTERS
from shoestring.serve.audience import Audience, audience, audiences

CALLERS = {
    ("GET", "/health"): Audience.ANYONE,
    ("GET", "/v1/models"): Audience.KEY,
    ("GET", "/v1/models/{model:path}"): Audience.KEY,
    ("POST", "/v1/chat/completions"): Audience.KEY,
    ("POST", "/v1/messages"): Audience.KEY,
    ("POST", "/v1/messages/count_tokens"): Audience.KEY,
}
"""Every route, and who may call it."""


def test_every_route_says_who_may_call_it():
    assert audiences(ROUTERS) == CALLERS


def test_a_route_that_does_not_say_it_is_an_error_at_the_start():
    router = APIRouter()

    @router.get("/open")
    @audience(Audience.ANYONE)
    def declared():
        return {}

    assert audiences([router]) == {("GET", "/open"): Audience.ANYONE}
    router.get("/forgotten")(lambda: {})
    with pytest.raises(TypeError, match="/forgotten"):
        audiences([router])
