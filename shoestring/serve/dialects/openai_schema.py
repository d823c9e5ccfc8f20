"""Schemas of replies of chat completions, completions, models and tokens."""

from typing import Any, Literal

from pydantic import Field

from shoestring.serve.dialects.schema import Schema

FinishReason = Literal["stop", "length", "tool_calls"]


class FunctionCall(Schema):
    name: str
    arguments: str
    """JSON as text."""


class ToolCall(Schema):
    id: str
    type: Literal["function"]
    function: FunctionCall


class AssistantMessage(Schema):
    role: Literal["assistant"]
    content: str | None
    refusal: None
    annotations: list[Any]
    reasoning_content: str = ""
    reasoning: str = ""
    """The same as reasoning_content, under its other name."""
    tool_calls: list[ToolCall] = Field(default_factory=list)


class TokenLogprob(Schema):
    token: str
    logprob: float
    bytes: list[int]


class ContentLogprob(TokenLogprob):
    top_logprobs: list[TokenLogprob]


class ChoiceLogprobs(Schema):
    content: list[ContentLogprob]
    refusal: None
    reasoning_content: list[ContentLogprob] = Field(default_factory=list)


class ChatChoice(Schema):
    index: int
    message: AssistantMessage
    logprobs: ChoiceLogprobs | None
    finish_reason: FinishReason
    stop_reason: str = ""
    """The stop string that ended the choice."""


class CachedTokens(Schema):
    cached_tokens: int


class ReasoningTokens(Schema):
    reasoning_tokens: int


class Usage(Schema):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: CachedTokens
    completion_tokens_details: ReasoningTokens
    prompt_cache_hit_tokens: int
    prompt_cache_miss_tokens: int


class ChatCompletion(Schema):
    """The whole reply of chat completions."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChatChoice]
    usage: Usage


class TextLogprobs(Schema):
    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


class TextChoice(Schema):
    index: int
    text: str
    logprobs: TextLogprobs | None
    finish_reason: FinishReason
    stop_reason: str = ""


class TextCompletion(Schema):
    """The whole reply of completions."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[TextChoice]
    usage: Usage


class Model(Schema):
    """A model."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    max_model_len: int
    """The most tokens of prompt and completion together."""
    parent: str | None
    """The model that it is an adapter of."""


class ModelList(Schema):
    """The models."""

    object: Literal["list"]
    data: list[Model]


class Tokens(Schema):
    """The tokens of a text."""

    count: int
    max_model_len: int
    tokens: list[int]


class Text(Schema):
    """The text of tokens."""

    prompt: str
    content: str
