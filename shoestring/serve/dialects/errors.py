"""The body of an error in each dialect."""

from collections.abc import Mapping, Sequence
from typing import Any

from shoestring.serve.backends.errors import Kind, RequestError

OPENAI_TYPES: dict[Kind, tuple[str, str | None]] = {
    "invalid": ("invalid_request_error", None),
    "parameter": ("invalid_request_error", None),
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
    "parameter": "invalid_request_error",
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


DEEPL_STATUS: dict[Kind, int] = {"authentication": 403, "balance": 456}
"""Statuses that DeepL's API has for a wrong key, and for money or characters that are used up."""


def error_status(path: str, error: RequestError) -> int:
    """The HTTP status of an error, in the dialect that the path belongs to."""
    return DEEPL_STATUS.get(error.kind, error.status) if is_deepl(path) else error.status


def is_deepl(path: str) -> bool:
    """Return whether a path belongs to DeepL's API."""
    return path.startswith(("/v2/", "/v3/"))


def error_body(path: str, error: RequestError) -> dict[str, Any]:
    """The body of an error, in the dialect that the path belongs to."""
    if path.removeprefix("/anthropic").startswith("/v1/messages"):
        return anthropic_error(error)
    if path.startswith("/api/"):
        return {"error": str(error)}
    if is_deepl(path):
        return {"message": str(error)}
    return openai_error(error)


def openai_error(error: RequestError) -> dict[str, Any]:
    """OpenAI's and DeepSeek's."""
    kind, code = OPENAI_TYPES[error.kind]
    return {"error": {"message": str(error), "type": kind, "param": error.field, "code": code}}


def anthropic_error(error: RequestError) -> dict[str, Any]:
    """Anthropic's."""
    return {"type": "error", "error": {"type": ANTHROPIC_TYPES[error.kind], "message": str(error)}}


OUT_OF_RANGE = (
    *("greater_than", "greater_than_equal", "less_than", "less_than_equal", "string_too_long", "too_long"),
    "literal_error",
)
"""Pydantic's types of errors for a value of the right form that is not allowed."""


def validation_error(problems: Sequence[Mapping[str, Any]], body: Any) -> RequestError:
    """The error of a body of the wrong form, by its first field that is wrong."""
    return _problem_error("invalid", problems, body)


def out_of_range(problems: Sequence[Mapping[str, Any]], body: Any) -> RequestError | None:
    """The error of a body whose form is right and whose first parameter out of range is this one."""
    outside = [problem for problem in problems if problem["type"] in OUT_OF_RANGE]
    return _problem_error("parameter", outside, body) if outside else None


def _problem_error(kind: Kind, problems: Sequence[Mapping[str, Any]], body: Any) -> RequestError:
    """The error of the first field; of a field that may have several forms, by the one that fits best."""
    if problems[0]["type"] == "json_invalid":
        return RequestError(kind, "the body is not valid JSON")
    places = [_place(problem["loc"][1:], body) for problem in problems]
    same = [number for number, place in enumerate(places) if place[:1] == places[0][:1]]
    best = max(same, key=lambda number: len(places[number]))
    field = ".".join(places[best]) or None
    return RequestError(kind, f"{field or 'the body'}: {problems[best]['msg']}", field=field)


def _place(location: Sequence[str | int], body: Any) -> list[str]:
    """A place in the body by its names, without pydantic's words for the forms that a field may have."""
    place = []
    for number, part in enumerate(location):
        is_list = isinstance(body, list) and isinstance(part, int) and part < len(body)
        if is_list or (isinstance(body, Mapping) and part in body):
            body = body[part]
        elif number + 1 < len(location) or not isinstance(body, Mapping):
            continue
        place.append(str(part))
    return place
