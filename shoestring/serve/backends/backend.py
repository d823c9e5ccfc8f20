"""The protocol of a backend: everything above it, every dialect, speaks only this."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from shoestring.serve.backends.reply import Reply
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


class Backend(Protocol):
    """A model that answers: in this process, or on another server."""

    @property
    def card(self) -> ModelCard: ...

    @property
    def is_healthy(self) -> bool:
        """Return whether the model still makes tokens."""
        ...

    async def open(self, request: BackendRequest) -> Reply:
        """Begin to answer. Raises RequestError for a request that cannot be served, before anything runs."""
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
