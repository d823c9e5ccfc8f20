"""The sender of a request: whose it is, what it may, and which cached prefixes it may share."""

import hashlib
import secrets
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Literal, Protocol

from shoestring.serve.admission.fair_queue import Priority
from shoestring.serve.ledger.caps import Cap

Scope = Literal["inference", "account", "admin"]
"""Rights of a key or session: ask models; also manage its own account; also the service."""


def new_request_id() -> str:
    """An id that no other request has."""
    return f"req_{secrets.token_hex(12)}"


class Cost(Protocol):
    """The cost of a reply, in nanos."""

    most: int
    """The amount that is held for it."""
    amount: int | None
    """The amount that was charged; None until it has ended."""


@dataclass(frozen=True, kw_only=True)
class Caller:
    """A sender that may call the routes of its audience, for the length of one request."""

    account_id: str
    """The account that pays; local in the mode without accounts."""
    key_id: str | None = None
    """The API key; None for a session, or without accounts."""
    scope: Scope = "inference"
    priority: Priority = "standard"
    weight: int = 1
    """Its share of a busy model beside others."""
    max_concurrency: int | None = None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    caps: Sequence[Cap] = ()
    idempotency_key: str | None = None
    request_id: str = field(default_factory=new_request_id, compare=False)
    """The id in the reply's headers and in the log; its operations in the ledger begin with it."""
    address: str = ""
    """The address that the request comes from."""
    costs: list[Cost] = field(default_factory=list, repr=False, compare=False)
    """Of the replies of this request."""
    ending: AsyncExitStack = field(default_factory=AsyncExitStack, repr=False, compare=False)
    """Closed when the request has ended, however it did."""

    def cache_salt(self, user_id: str | None) -> str:
        """The salt of the prefix cache: prompts of another account or user never share pages with these."""
        name = f"{self.account_id}\0{user_id or ''}"
        return hashlib.sha256(name.encode()).hexdigest()[:32]


NOBODY = Caller(account_id="")
"""The sender of a request that anyone may make."""
LOCAL = Caller(account_id="local", scope="admin")
"""The one person of a service on loopback without accounts."""
