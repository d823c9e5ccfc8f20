"""The secret of a service: what its database keeps of keys and tokens is worth nothing without it."""

import hashlib
import hmac
import os
import secrets
from pathlib import Path

from shoestring.errors import ConfigError

NUM_BYTES = 32


class Secret:
    """A secret from which one key is made for each purpose."""

    def __init__(self, content: bytes) -> None:
        """Raises ConfigError for fewer than 32 bytes."""
        if len(content) < NUM_BYTES:
            raise ConfigError(f"the service's secret has {len(content)} bytes; it needs {NUM_BYTES} or more")
        self._content = content

    def __repr__(self) -> str:
        return "Secret(...)"

    def digest(self, purpose: str, text: str) -> str:
        """HMAC-SHA256 of a text in hexadecimal digits, with the key of a purpose."""
        return hmac.new(self.key(purpose), text.encode(), hashlib.sha256).hexdigest()

    def key(self, purpose: str) -> bytes:
        """The key of a purpose, 32 bytes (HKDF's expansion for one block, RFC 5869)."""
        return hmac.new(self._content, purpose.encode() + b"\x01", hashlib.sha256).digest()


def read_secret(path: Path) -> Secret:
    """The secret in a file, which is made, for its owner's eyes only, when it does not exist.

    Raises ConfigError when others could read it.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        if os.name == "posix" and path.stat().st_mode & 0o077:
            raise ConfigError(f"others can read {path}; run `chmod 600 {path}`") from None
        return Secret(path.read_bytes())
    with os.fdopen(descriptor, "wb") as file:
        file.write(secrets.token_bytes(NUM_BYTES))
        file.flush()
        os.fsync(file.fileno())
    return Secret(path.read_bytes())
