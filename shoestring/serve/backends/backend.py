"""The protocol of a backend: everything above it, every dialect, speaks only this."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from shoestring.serve.backends.reply import Work
from shoestring.serve.backends.request import BackendRequest


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """A model as `/v1/models` lists it."""

    id: str
    max_model_len: int
    """The most tokens of prompt and completion together."""
    created_s: int
    """Seconds since 1970."""
    owned_by: str = "shoestring"
    parent: str | None = None
    """The model that it is an adapter of."""


class Backend(Protocol):
    """A model that answers: in this process, or on another server."""

    @property
    def card(self) -> ModelCard: ...

    @property
    def is_healthy(self) -> bool:
        """Return whether the model still makes tokens."""
        ...

    def start(self) -> None:
        """Begin to serve, on the running event loop."""
        ...

    async def prepare(self, request: BackendRequest) -> Work:
        """Check a request and say how much it can be; nothing runs. Raises RequestError."""
        ...

    async def tokenize(self, request: BackendRequest) -> tuple[int, ...]:
        """Ids of the request's prompt. Raises RequestError."""
        ...

    async def detokenize(self, token_ids: Sequence[int]) -> str:
        """The text of token ids. Raises RequestError."""
        ...

    async def close(self) -> None:
        """End what is under way and free the model."""
        ...
