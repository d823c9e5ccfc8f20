"""Addresses of servers behind this one, and the models that they list."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx2

from shoestring.errors import ConfigError
from shoestring.remote.config import checked_url, read_key
from shoestring.serve.backends.backend import ModelCard

DEFAULT_CONTEXT = 32_768
"""The context of a model whose server does not name it."""
TIMEOUT_S = 10.0
FORM = "an upstream is URL, or URL,weight=2 or URL,key_env=NAME, or both"


@dataclass(frozen=True, kw_only=True)
class Address:
    """A server, its share of the requests, and its key."""

    url: str
    """Ends before `/chat/completions`, mostly in /v1."""
    weight: float = 1.0
    key: str = field(default="", repr=False)

    @property
    def name(self) -> str:
        """Host, port and path, for logs and metrics."""
        return self.url.partition("://")[2].removesuffix("/v1")


def read_address(text: str) -> Address:
    """Read `URL,weight=2,key_env=NAME`; the variable NAME holds the server's key. Raises ConfigError."""
    url, *settings = text.split(",")
    url, values = checked_url(url), {"weight": "1", "key_env": ""}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if name not in values or not equals:
            raise ConfigError(f"{setting!r}: {FORM}")
        values[name] = value
    try:
        weight = float(values["weight"])
    except ValueError:
        weight = math.nan
    if not 0 < weight < math.inf:
        raise ConfigError(f"weight={values['weight']} is not a number over 0; {FORM}")
    return Address(url=url, weight=weight, key=read_key(values["key_env"], url))


def read_addresses(texts: Sequence[str]) -> list[Address]:
    """Read several. Raises ConfigError when a server is named twice."""
    addresses = [read_address(text) for text in texts]
    for address in addresses:
        if sum(other.name == address.name for other in addresses) > 1:
            raise ConfigError(f"the server {address.name} is named twice; give it a weight instead")
    return addresses


async def list_models(address: Address) -> dict[str, ModelCard]:
    """The models of a server by name. Raises ConfigError when it does not answer or has none."""
    headers = {"Authorization": f"Bearer {address.key}"} if address.key else {}
    url = f"{address.url}/models"
    try:
        async with httpx2.AsyncClient(timeout=TIMEOUT_S, trust_env=False) as client:
            reply = await client.get(url, headers=headers)
        models = reply.json()["data"] if reply.status_code == 200 else []
        cards = [_card(model) for model in models if isinstance(model, dict) and _is_name(model.get("id"))]
    except (httpx2.HTTPError, OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{url} does not answer ({type(error).__name__}); start it first") from None
    if not cards:
        raise ConfigError(f"{url} lists no model (status {reply.status_code}); check its URL and key")
    return {card.id: card for card in cards}


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= 200 and value.isprintable()


def _card(model: dict[str, Any]) -> ModelCard:
    length = model.get("max_model_len")
    return ModelCard(
        id=model["id"],
        max_model_len=length if type(length) is int and length > 0 else DEFAULT_CONTEXT,
        created_s=int(time.time()),
        owned_by=str(model.get("owned_by", "upstream"))[:100],
    )
