"""Schemas of OpenAI's responses."""

from typing import Annotated, Any, Literal

from pydantic import Field

from shoestring.serve.dialects.openai_schema import CachedTokens, ReasoningTokens
from shoestring.serve.dialects.schema import Schema

ItemStatus = Literal["in_progress", "completed", "incomplete"]


class ReasoningText(Schema):
    type: Literal["reasoning_text"]
    text: str


class OutputText(Schema):
    type: Literal["output_text"]
    text: str
    annotations: list[Any]
    logprobs: list[Any]


class ReasoningItem(Schema):
    type: Literal["reasoning"]
    id: str
    status: ItemStatus
    summary: list[Any]
    content: list[ReasoningText]


class MessageItem(Schema):
    type: Literal["message"]
    id: str
    status: ItemStatus
    role: Literal["assistant"]
    content: list[OutputText]


class FunctionCallItem(Schema):
    type: Literal["function_call"]
    id: str
    status: ItemStatus
    call_id: str
    name: str
    namespace: str = ""
    """The namespace of the function, if it has one."""
    arguments: str


Item = Annotated[ReasoningItem | MessageItem | FunctionCallItem, Field(discriminator="type")]


class ResponseUsage(Schema):
    input_tokens: int
    input_tokens_details: CachedTokens
    output_tokens: int
    output_tokens_details: ReasoningTokens
    total_tokens: int


class IncompleteDetails(Schema):
    reason: Literal["max_output_tokens"]


class TextConfig(Schema):
    format: dict[str, Any]


class ReasoningConfig(Schema):
    effort: str | None
    summary: str | None


class OpenAIResponse(Schema):
    """The whole response; fields of the request are repeated."""

    id: str
    object: Literal["response"]
    created_at: int
    completed_at: int | None
    status: Literal["completed", "incomplete"]
    model: str
    output: list[Item]
    usage: ResponseUsage
    error: None
    incomplete_details: IncompleteDetails | None
    instructions: str | None
    previous_response_id: None
    tools: list[dict[str, Any]]
    tool_choice: str | dict[str, Any]
    parallel_tool_calls: bool
    text: TextConfig
    reasoning: ReasoningConfig
    temperature: float
    top_p: float
    top_logprobs: int
    presence_penalty: float
    frequency_penalty: float
    max_output_tokens: int | None
    max_tool_calls: int | None
    truncation: Literal["disabled"]
    store: Literal[False]
    background: Literal[False]
    service_tier: Literal["default"]
    metadata: dict[str, Any]
    safety_identifier: str | None
    prompt_cache_key: str | None
