"""Schemas that all dialects share: errors, and what a route declares for the OpenAPI document."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict


class Schema(BaseModel):
    """A body of a reply with exactly these fields; those with a default may be absent."""

    model_config = ConfigDict(extra="forbid")


class OpenAIErrorFields(Schema):
    message: str
    type: str
    param: str | None
    """The request's field that is wrong."""
    code: str | None


class OpenAIError(Schema):
    """An error of OpenAI's and DeepSeek's API."""

    error: OpenAIErrorFields


class AnthropicErrorFields(Schema):
    type: str
    message: str


class AnthropicError(Schema):
    """An error of Anthropic's API."""

    type: Literal["error"]
    error: AnthropicErrorFields


class OllamaError(Schema):
    """An error of Ollama's API."""

    error: str


class DeepLError(Schema):
    """An error of DeepL's API."""

    message: str


ERROR_BODIES = (OpenAIError, AnthropicError, OllamaError, DeepLError)
REFERENCE = "#/components/schemas/{model}"
"""The place of a schema in the OpenAPI document."""
ERRORS = {
    400: "The request is wrong; the message names the field.",
    401: "The key is missing or unknown.",
    402: "The balance is used up.",
    403: "The key may not do this.",
    404: "There is no such model.",
    409: "Another request has this Idempotency-Key, or what is asked cannot be done now.",
    413: "The body is too long.",
    429: "Too many requests; Retry-After says when to come back.",
    500: "The server failed.",
    503: "The server is busy or ending; Retry-After says when to come back.",
}
"""Statuses of errors that every route may answer with."""

EVENTS = "text/event-stream"
EVENT = {
    "type": "object",
    "properties": {"event": {"type": "string"}, "data": {"type": "string"}},
    "required": ["data"],
}
"""A server-sent event: its data is JSON, or [DONE]."""

Responses = dict[int | str, dict[str, Any]]


def errors(body: type[Schema], others: dict[int, str] | None = None) -> Responses:
    """The errors of a router, all with one form of body, one of ERROR_BODIES; `others` are further statuses.

    They name its schema: as a `model`, each status of each route would take time at the start, 0.3 s in all.
    """
    statuses = {**ERRORS, **(others or {})}
    content = {"application/json": {"schema": {"$ref": REFERENCE.format(model=body.__name__)}}}
    return {status: {"content": content, "description": words} for status, words in statuses.items()}


def whole(body: Any) -> Responses:
    """A reply that is always whole."""
    return {200: {"model": body, "description": "The reply."}}


def whole_or_stream(body: Any, media_type: str = EVENTS) -> Responses:
    """A reply that is whole, or with `stream` a stream."""
    content = {media_type: {"itemSchema": EVENT if media_type == EVENTS else {"type": "object"}}}
    return {200: {"model": body, "content": content, "description": "The reply, whole or as a stream."}}
