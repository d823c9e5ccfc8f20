"""Servers behind this one: the models that one of them offers, as backends."""

import time

import httpx2

from shoestring.errors import ConfigError
from shoestring.remote.config import checked_url, read_key
from shoestring.serve.backends.backend import ModelCard
from shoestring.serve.backends.remote import RemoteBackend

DEFAULT_CONTEXT = 32_768
"""The context of a model whose server does not name it."""
TIMEOUT_S = 10.0


def upstream_backends(url: str, key_env: str = "") -> list[RemoteBackend]:
    """The models of a server, whose URL mostly ends in /v1; `key_env` is the variable with its key.

    Raises ConfigError for a server that does not answer or has no models.
    """
    url = checked_url(url)
    key = read_key(key_env, url)
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        reply = httpx2.get(f"{url}/models", headers=headers, timeout=TIMEOUT_S, trust_env=False)
        models = reply.json()["data"] if reply.status_code == 200 else []
    except (httpx2.HTTPError, OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{url}/models does not answer ({type(error).__name__}); start it first") from None
    cards = [_card(model) for model in models if isinstance(model, dict) and isinstance(model.get("id"), str)]
    if not cards:
        raise ConfigError(f"{url}/models lists no model (status {reply.status_code}); check its URL and key")
    return [RemoteBackend(card, url, model=card.id, key=key) for card in cards]


def _card(model: dict[str, object]) -> ModelCard:
    length = model.get("max_model_len")
    is_length = isinstance(length, int) and length > 0
    return ModelCard(
        id=str(model["id"])[:200],
        max_model_len=length if isinstance(length, int) and is_length else DEFAULT_CONTEXT,
        created_s=int(time.time()),
        owned_by=str(model.get("owned_by", "upstream"))[:100],
    )
