"""The settings of a server: model, limits, prices; its URL and key are checked here."""

import logging
import math
import os
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from shoestring.errors import ConfigError

log = logging.getLogger(__name__)

_OWN_FIELDS = ("model", "messages", "n", "stream", "max_tokens", "temperature", "top_p")


@dataclass(frozen=True, kw_only=True)
class RemoteConfig:
    """One server's settings. Its URL ends before `/chat/completions`, mostly in `/v1`."""

    model: str = ""
    """The model's name there."""
    key_env: str = ""
    """The environment variable that holds the API key; empty for a server without keys."""
    concurrency: int = 16
    """Requests at once."""
    timeout_s: float = 600.0
    """For one request, from the first byte sent to the last received."""
    attempts: int = 6
    """Attempts at one request before it fails."""
    max_reply_bytes: int = 16 << 20
    price_in: float = 0.0
    """Money per million prompt tokens, in the currency of `cost_cap`."""
    price_out: float = 0.0
    """Money per million generated tokens, thinking included."""
    cost_cap: float | None = None
    """No request is sent that could bring the total cost above this."""
    extra: dict[str, Any] = field(default_factory=dict)
    """More fields of the request, such as {thinking = {type = "enabled"}}."""

    def __post_init__(self) -> None:
        for name in ("concurrency", "attempts", "max_reply_bytes"):
            if getattr(self, name) < 1:
                raise ConfigError(f"remote.{name} = {getattr(self, name)} must be at least 1")
        if not 0.0 < self.timeout_s < math.inf:
            raise ConfigError(f"remote.timeout_s = {self.timeout_s} is not a number over 0")
        for name in ("price_in", "price_out"):
            if not 0.0 <= getattr(self, name) < math.inf:
                raise ConfigError(f"remote.{name} = {getattr(self, name)} is not a number of at least 0")
        if self.cost_cap is not None and not (
            0.0 < self.cost_cap < math.inf and self.price_in and self.price_out
        ):
            raise ConfigError(
                f"remote.cost_cap = {self.cost_cap} must be over 0, and needs remote.price_in and price_out"
            )
        if wrong := [name for name in _OWN_FIELDS if name in self.extra]:
            raise ConfigError(f"remote.extra has {wrong[0]!r}, which has a field of its own")


def checked_url(url: str) -> str:
    """The URL up to its path. It is shown and saved, so one with a secret in it is a ConfigError."""
    try:
        parts = urlsplit(url.strip())
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise ConfigError(f"the server's URL cannot be read: {error}") from None
    if parts.scheme not in ("http", "https") or not host:
        raise ConfigError(f"{parts.scheme or 'the URL'} is not the http:// or https:// address of a server")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ConfigError(
            f"the URL of {host} holds a name, a password or a query; give the key by remote.key_env"
        )
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/').removesuffix('/chat/completions')}"


def read_key(name: str, url: str) -> str:
    """The key from the environment; it is never shown."""
    if not name:
        return ""
    key = os.environ.get(name, "").strip()
    if not key:
        raise ConfigError(
            f"remote.key_env names {name}, and the environment has no such variable; export it first"
        )
    if not (key.isascii() and key.isprintable()):
        raise ConfigError(f"the key in {name} holds characters that no key has; export it again")
    if url.startswith("http://") and urlsplit(url).hostname not in ("localhost", "127.0.0.1", "::1"):
        log.warning("the key in %s goes to %s unencrypted", name, url)
    return key
