"""Schemas of replies of Anthropic's messages."""

from typing import Annotated, Any, Literal

from pydantic import Field

from shoestring.serve.dialects.schema import Schema


class ThinkingBlock(Schema):
    type: Literal["thinking"]
    thinking: str
    signature: str


class TextBlock(Schema):
    type: Literal["text"]
    text: str
    citations: None


class DirectCaller(Schema):
    type: Literal["direct"]


class ToolUseBlock(Schema):
    type: Literal["tool_use"]
    id: str
    name: str
    input: dict[str, Any]
    caller: DirectCaller


Block = Annotated[ThinkingBlock | TextBlock | ToolUseBlock, Field(discriminator="type")]


class MessageUsage(Schema):
    input_tokens: int
    """Tokens of the prompt that did not come from the cache."""
    output_tokens: int
    cache_read_input_tokens: int
    cache_creation_input_tokens: int
    cache_creation: None
    inference_geo: None
    output_tokens_details: None
    server_tool_use: None
    service_tier: Literal["standard"]


class AnthropicMessage(Schema):
    """The whole reply of messages."""

    id: str
    type: Literal["message"]
    role: Literal["assistant"]
    model: str
    container: None
    content: list[Block]
    stop_reason: Literal["end_turn", "max_tokens", "stop_sequence", "tool_use"]
    stop_sequence: str | None
    stop_details: None
    usage: MessageUsage


class TokenCount(Schema):
    """The number of a conversation's tokens."""

    input_tokens: int
