"""Errors of a request, in the terms of every dialect: what kind, one sentence, and when to come back."""

from typing import Literal

Kind = Literal[
    "invalid",
    "parameter",
    "context_length",
    "authentication",
    "balance",
    "permission",
    "not_found",
    "too_large",
    "conflict",
    "rate_limit",
    "failed",
    "overloaded",
]

STATUS: dict[Kind, int] = {
    "invalid": 400,
    "parameter": 422,
    "context_length": 400,
    "authentication": 401,
    "balance": 402,
    "permission": 403,
    "not_found": 404,
    "conflict": 409,
    "too_large": 413,
    "rate_limit": 429,
    "failed": 500,
    "overloaded": 503,
}


class RequestError(Exception):
    """A request that cannot be served; the text is for its sender."""

    def __init__(
        self, kind: Kind, message: str, *, field: str | None = None, retry_after_s: float | None = None
    ) -> None:
        """`field` is the name of the request's field that is wrong."""
        super().__init__(message)
        self.kind, self.field, self.retry_after_s = kind, field, retry_after_s

    @property
    def status(self) -> int:
        """The HTTP status."""
        return STATUS[self.kind]
