"""The body of an error in each dialect."""

from typing import Any

from shoestring.serve.backends.errors import Kind, RequestError

OPENAI_TYPES: dict[Kind, tuple[str, str | None]] = {
    "invalid": ("invalid_request_error", None),
    "context_length": ("invalid_request_error", "context_length_exceeded"),
    "authentication": ("authentication_error", "invalid_api_key"),
    "balance": ("insufficient_balance_error", "insufficient_balance"),
    "permission": ("permission_error", "permission_denied"),
    "not_found": ("invalid_request_error", "model_not_found"),
    "conflict": ("invalid_request_error", "conflict"),
    "too_large": ("invalid_request_error", "request_too_large"),
    "rate_limit": ("rate_limit_error", "rate_limit_exceeded"),
    "failed": ("server_error", "internal_error"),
    "overloaded": ("overloaded_error", "service_unavailable"),
}
ANTHROPIC_TYPES: dict[Kind, str] = {
    "invalid": "invalid_request_error",
    "context_length": "invalid_request_error",
    "authentication": "authentication_error",
    "balance": "billing_error",
    "permission": "permission_error",
    "not_found": "not_found_error",
    "conflict": "invalid_request_error",
    "too_large": "request_too_large",
    "rate_limit": "rate_limit_error",
    "failed": "api_error",
    "overloaded": "overloaded_error",
}


def error_body(path: str, error: RequestError) -> dict[str, Any]:
    """The body of an error, in the dialect that the path belongs to."""
    if path.removeprefix("/anthropic").startswith("/v1/messages"):
        return anthropic_error(error)
    if path.startswith("/api/"):
        return {"error": str(error)}
    return openai_error(error)


def openai_error(error: RequestError) -> dict[str, Any]:
    """OpenAI's and DeepSeek's."""
    kind, code = OPENAI_TYPES[error.kind]
    return {"error": {"message": str(error), "type": kind, "param": error.field, "code": code}}


def anthropic_error(error: RequestError) -> dict[str, Any]:
    """Anthropic's."""
    return {"type": "error", "error": {"type": ANTHROPIC_TYPES[error.kind], "message": str(error)}}
