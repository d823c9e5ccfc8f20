"""Sign-in by another service: OpenID Connect's authorization code flow with PKCE (Core 1.0, RFC 7636)."""

import base64
import hashlib
import json
import os
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode, urlsplit

import httpx2

from shoestring.errors import ConfigError
from shoestring.serve.backends.errors import RequestError

TIMEOUT_S = 10.0
METADATA_S = 3600
"""Seconds for which a provider's endpoints and keys are taken as they were read."""
ALGORITHMS = ["RS256", "ES256", "PS256", "EdDSA"]
FAILURE = "the other service did not confirm who you are; try again"


@dataclass(frozen=True, kw_only=True)
class OidcConfig:
    """A provider of identities."""

    issuer: str = ""
    """Its https address; without one nobody signs in by another service."""
    client_id: str = ""
    client_secret_env: str = "SHOESTRING_OIDC_SECRET"
    """The environment variable with the client's secret."""


@dataclass(frozen=True, kw_only=True)
class Identity:
    """A person as the provider knows them."""

    issuer: str
    subject: str
    email: str | None
    """Only when the provider has checked it."""


@dataclass(frozen=True)
class Attempt:
    """A sign-in that has begun: what the browser keeps in a cookie until it comes back."""

    state: str = field(repr=False)
    nonce: str = field(repr=False)
    verifier: str = field(repr=False)

    def text(self) -> str:
        """The attempt as a cookie's value."""
        return f"{self.state}.{self.nonce}.{self.verifier}"


def new_attempt() -> Attempt:
    """An attempt with secrets of 256 bits."""
    return Attempt(*(secrets.token_urlsafe(32) for _ in range(3)))


def read_attempt(text: str) -> Attempt:
    """The attempt of a cookie. Raises RequestError for another text."""
    parts = text.split(".")
    if len(parts) != 3:
        raise RequestError("permission", FAILURE)
    return Attempt(*parts)


class Provider:
    """One provider. Use it on one event loop."""

    def __init__(
        self,
        config: OidcConfig,
        redirect_uri: str,
        *,
        transport: httpx2.AsyncBaseTransport | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Raises ConfigError for half a configuration."""
        if not config.issuer.startswith("https://") or not config.client_id:
            raise ConfigError("oidc needs an issuer that begins with https:// and a client_id")
        self._config, self._redirect_uri, self._clock = config, redirect_uri, clock
        self._secret = os.environ.get(config.client_secret_env, "")
        self._client = httpx2.AsyncClient(transport=transport, timeout=TIMEOUT_S, trust_env=False)
        self._metadata: tuple[float, dict[str, Any], dict[str, Any]] | None = None

    @property
    def name(self) -> str:
        """The host of the provider, by which people know it."""
        return urlsplit(self._config.issuer).hostname or self._config.issuer

    async def address(self, attempt: Attempt) -> str:
        """The provider's page for an attempt. Raises RequestError when it does not answer."""
        metadata, _ = await self._read_metadata()
        digest = hashlib.sha256(attempt.verifier.encode()).digest()
        fields = {
            "response_type": "code",
            "client_id": self._config.client_id,
            "redirect_uri": self._redirect_uri,
            "scope": "openid email",
            "state": attempt.state,
            "nonce": attempt.nonce,
            "code_challenge": base64.urlsafe_b64encode(digest).rstrip(b"=").decode(),
            "code_challenge_method": "S256",
        }
        return f"{metadata['authorization_endpoint']}?{urlencode(fields)}"

    async def identity(self, attempt: Attempt, code: str, state: str) -> Identity:
        """The person who comes back with a code. Raises RequestError."""
        if not secrets.compare_digest(state.encode(), attempt.state.encode()):
            raise RequestError("permission", FAILURE)
        metadata, keys = await self._read_metadata()
        fields = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self._redirect_uri,
            "client_id": self._config.client_id,
            "client_secret": self._secret,
            "code_verifier": attempt.verifier,
        }
        reply = await self._json("POST", metadata["token_endpoint"], data=fields)
        claims = self._claims(str(reply.get("id_token", "")), keys, attempt.nonce)
        email = claims.get("email") if claims.get("email_verified") is True else None
        return Identity(issuer=claims["iss"], subject=str(claims["sub"]), email=email)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    def _claims(self, token: str, keys: dict[str, Any], nonce: str) -> dict[str, Any]:
        """The claims of an ID token whose signature, issuer, audience, time and nonce are right."""
        from joserfc import jwt
        from joserfc.errors import JoseError
        from joserfc.jwk import KeySet

        rules = jwt.JWTClaimsRegistry(
            now=int(self._clock()),
            leeway=60,
            iss={"essential": True, "value": self._config.issuer},
            aud={"essential": True, "value": self._config.client_id},
            exp={"essential": True},
            sub={"essential": True},
            nonce={"essential": True, "value": nonce},
        )
        try:
            claims = jwt.decode(token, KeySet.import_key_set(keys), algorithms=ALGORITHMS).claims  # type: ignore[arg-type]
            rules.validate(claims)
        except (JoseError, ValueError, TypeError, KeyError):
            raise RequestError("permission", FAILURE) from None
        return dict(claims)

    async def _read_metadata(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The provider's endpoints and keys."""
        if self._metadata is None or self._clock() - self._metadata[0] > METADATA_S:
            address = f"{self._config.issuer.rstrip('/')}/.well-known/openid-configuration"
            metadata = await self._json("GET", address)
            if metadata.get("issuer") != self._config.issuer:
                raise RequestError("failed", "the provider calls itself by another name than oidc.issuer")
            keys = await self._json("GET", str(metadata["jwks_uri"]))
            self._metadata = self._clock(), metadata, keys
        return self._metadata[1:]

    async def _json(self, method: str, address: str, **fields: Any) -> dict[str, Any]:
        try:
            reply = await self._client.request(method, address, **fields)
            content = reply.json() if reply.status_code == 200 else None
        except (httpx2.HTTPError, json.JSONDecodeError, UnicodeDecodeError):
            content = None
        if not isinstance(content, dict):
            raise RequestError("overloaded", "the other service does not answer; try again", retry_after_s=5)
        return content
