"""Secrets that people and programs carry: API keys, sessions, known browsers and one-time links."""

import hmac
import re
import secrets
from dataclasses import dataclass, field

from shoestring.serve.accounts.secret import Secret

KEY_PATTERN = re.compile(r"ss-([a-z0-9]{12})-([A-Za-z0-9_-]{32})([0-9a-f]{16})")


@dataclass(frozen=True)
class ApiKey:
    """An API key in parts; its text is shown once and never kept."""

    id: str
    secret: str = field(repr=False)

    def text(self, secret: Secret) -> str:
        """The key as its owner sees it; it ends with a mark that only this service can make."""
        return f"ss-{self.id}-{self.secret}{self._mark(secret)}"

    def digest(self, secret: Secret) -> str:
        """The digest of its secret, which is all that the database keeps."""
        return secret.digest("API keys", self.secret)

    def _mark(self, secret: Secret) -> str:
        return secret.digest("marks of API keys", f"{self.id} {self.secret}")[:16]


def new_key() -> ApiKey:
    """A key with a secret of 192 bits."""
    alphabet = "abcdefghijklmnopqrstuvwxyz0123456789"
    return ApiKey("".join(secrets.choice(alphabet) for _ in range(12)), secrets.token_urlsafe(24))


def read_key(text: str, secret: Secret) -> ApiKey | None:
    """The parts of a key; None for a text that this service never gave out, so that nobody looks it up."""
    match = KEY_PATTERN.fullmatch(text)
    key = ApiKey(match[1], match[2]) if match else None
    return key if key and hmac.compare_digest(key.text(secret), text) else None


def new_token() -> str:
    """A token of 256 bits for a cookie or a link."""
    return secrets.token_urlsafe(32)
