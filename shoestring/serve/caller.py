"""The sender of a request: whose it is, and which cached prefixes it may share."""

import hashlib
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Caller:
    """A sender that may call the routes of its audience."""

    account_id: str
    """The account that pays; LOCAL in the mode `local`."""

    def cache_salt(self, user_id: str | None) -> str:
        """The salt of the prefix cache: prompts of another account or user never share pages with these."""
        name = f"{self.account_id}\0{user_id or ''}"
        return hashlib.sha256(name.encode()).hexdigest()[:32]


LOCAL = Caller(account_id="local")
"""The one person of a service on loopback without accounts."""
