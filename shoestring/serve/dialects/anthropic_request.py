"""Anthropic's messages: the request, and its translation to a conversation."""

import json
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from shoestring.errors import ConfigError
from shoestring.sampling_params import SamplingParams, StructuredOutputsParams
from shoestring.serve.backends.errors import RequestError
from shoestring.serve.backends.request import ChatRequest
from shoestring.serve.dialects.numbers import Count, TopP, Whole
from shoestring.serve.dialects.openai_fields import Defaults, Effort, Thinking, effort_variable, schema_form

WITHOUT_EFFECT = (
    *("cache_control", "container", "context_management", "diagnostics", "inference_geo", "mcp_servers"),
    *("service_tier", "speed", "user_profile_id", "workspace_id", "betas"),
)
"""Known fields that change nothing here."""
BILLING_HEADER = "x-anthropic-billing-header:"
"""Beginning of a system block of Claude Code that differs in every request, and would defeat the cache."""


class Message(BaseModel):
    """A message: text, or blocks."""

    model_config = ConfigDict(extra="allow", strict=True)
    role: Literal["user", "assistant", "system"]
    content: str | list[dict[str, Any]]


class OutputConfig(BaseModel):
    """The effort of thinking, and the form of the answer."""

    model_config = ConfigDict(extra="allow", strict=True)
    effort: Effort | None = None
    format: dict[str, Any] | None = None
    """{"type": "json_schema", "schema": ...}."""


class CountTokensRequest(BaseModel):
    """Body of POST /v1/messages/count_tokens."""

    model_config = ConfigDict(extra="allow", strict=True)
    model: Annotated[str, Field(max_length=512)]
    messages: Annotated[list[Message], Field(min_length=1)]
    system: str | list[dict[str, Any]] | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: dict[str, Any] | None = None
    thinking: Thinking | None = None
    output_config: OutputConfig | None = None


class MessagesRequest(CountTokensRequest):
    """Body of POST /v1/messages."""

    max_tokens: Count
    stream: bool | None = None
    temperature: Annotated[float | None, Field(ge=0, le=2)] = None
    top_p: TopP | None = None
    top_k: Whole[Annotated[int, Field(ge=0)]] | None = None
    stop_sequences: Annotated[list[str] | None, Field(max_length=64)] = None
    metadata: dict[str, Any] | None = None


def user_id(body: MessagesRequest) -> str | None:
    """The user that the request names."""
    name = (body.metadata or {}).get("user_id")
    return name[:512] if isinstance(name, str) else None


def chat_request(body: CountTokensRequest, defaults: Defaults, *, cache_salt: str) -> ChatRequest:
    """The backend's request. Raises RequestError naming a field that is wrong or not supported."""
    messages = [*_system(body.system), *(part for message in body.messages for part in _parts(message))]
    tools = tuple(_tools(body.tools or ()))
    choice, is_parallel = _tool_choice(body.tool_choice or {}, [tool["function"]["name"] for tool in tools])
    return ChatRequest(
        messages=tuple(messages),
        sampling=_sampling(body, defaults) if isinstance(body, MessagesRequest) else SamplingParams(),
        tools=tools,
        tool_choice=choice if tools else "none",
        parallel_tool_calls=is_parallel,
        thinking=None if body.thinking is None else body.thinking.is_on,
        template_variables=effort_variable(body.output_config.effort if body.output_config else None),
        continue_final_message=messages[-1]["role"] == "assistant" and bool(messages[-1].get("content")),
        cache_salt=cache_salt,
    )


def shows_thinking(body: MessagesRequest) -> bool:
    """Return whether the text of the thinking goes into the reply."""
    return body.thinking is None or body.thinking.display != "omitted"


def _sampling(body: MessagesRequest, defaults: Defaults) -> SamplingParams:
    values = {name: getattr(body, name) for name in ("temperature", "top_p", "top_k")}
    values = {name: value for name, value in values.items() if value is not None}
    try:
        return SamplingParams(
            **{**defaults, **values},
            max_tokens=body.max_tokens,
            stop=body.stop_sequences or (),
            structured_outputs=_form(body.output_config),
        )
    except ConfigError as error:
        raise RequestError("invalid", str(error), field=str(error).split()[0]) from None


def _form(config: OutputConfig | None) -> StructuredOutputsParams | None:
    if config is None or config.format is None:
        return None
    if config.format.get("type") != "json_schema":
        message = "output_config.format.type must be json_schema"
        raise RequestError("invalid", message, field="output_config.format")
    return schema_form(config.format, "output_config.format")


def _tools(tools: Any) -> Iterator[dict[str, Any]]:
    """Definitions of the client's own tools; those that only Anthropic can run are left out."""
    for tool in tools:
        if tool.get("type", "custom") in ("custom", None):
            if not isinstance(tool.get("name"), str):
                raise RequestError("invalid", "a tool has no name", field="tools")
            function = {"name": tool["name"], "parameters": tool.get("input_schema")}
            if isinstance(tool.get("description"), str):
                function["description"] = tool["description"]
            yield {"type": "function", "function": function}


def _tool_choice(choice: Mapping[str, Any], names: list[str]) -> tuple[str, bool]:
    """The choice as a ChatRequest has it, and whether several calls are allowed."""
    kind = choice.get("type", "auto")
    is_parallel = choice.get("disable_parallel_tool_use") is not True
    if kind == "tool":
        if choice.get("name") not in names:
            raise RequestError("invalid", "tool_choice names none of the tools", field="tool_choice")
        return str(choice["name"]), is_parallel
    choices = {"auto": "auto", "any": "required", "none": "none"}
    if kind not in choices:
        raise RequestError("invalid", "tool_choice.type must be auto, any, tool or none", field="tool_choice")
    return choices[kind], is_parallel


def _system(system: str | list[dict[str, Any]] | None) -> list[dict[str, Any]]:
    blocks = [{"type": "text", "text": system}] if isinstance(system, str) else system or []
    texts = [_text(block, "system") for block in blocks]
    text = "\n\n".join(text for text in texts if text and not text.startswith(BILLING_HEADER))
    return [{"role": "system", "content": text}] if text else []


def _parts(message: Message) -> Iterator[dict[str, Any]]:
    """One message as OpenAI's: tool results before the text of a user's message."""
    if isinstance(message.content, str):
        yield {"role": message.role, "content": message.content}
        return
    if not message.content:
        raise RequestError("invalid", "a message has no content", field="messages")
    if message.role == "assistant":
        yield _assistant(message.content)
        return
    texts: list[str] = []
    for block in message.content:
        if block.get("type") == "tool_result":
            yield _tool_result(block)
        else:
            texts.append(_text(block, "messages"))
    if texts:
        yield {"role": message.role, "content": "\n\n".join(texts)}


def _assistant(blocks: list[dict[str, Any]]) -> dict[str, Any]:
    text, thinking, calls = "", "", []
    for block in blocks:
        kind = block.get("type")
        if kind == "thinking":
            thinking += str(block.get("thinking") or "")
        elif kind == "tool_use":
            arguments = json.dumps(block.get("input") or {}, ensure_ascii=False)
            function = {"name": str(block.get("name")), "arguments": arguments}
            calls.append({"id": str(block.get("id")), "type": "function", "function": function})
        elif kind != "redacted_thinking":
            text += _text(block, "messages")
    message: dict[str, Any] = {"role": "assistant", "content": text}
    if thinking:
        message["reasoning_content"] = thinking
    if calls:
        message |= {"tool_calls": calls, "content": text or None}
    return message


def _tool_result(block: Mapping[str, Any]) -> dict[str, Any]:
    content = block.get("content") or ""
    if isinstance(content, list):
        content = "\n".join(_text(each, "messages") for each in content)
    prefix = "Error: " if block.get("is_error") else ""
    return {"role": "tool", "tool_call_id": str(block.get("tool_use_id")), "content": f"{prefix}{content}"}


def _text(block: Any, field: str) -> str:
    """The text of a block. Raises RequestError for one that is none."""
    if isinstance(block, Mapping) and block.get("type") == "text" and isinstance(block.get("text"), str):
        return str(block["text"])
    kind = block.get("type") if isinstance(block, Mapping) else type(block).__name__
    raise RequestError(
        "invalid", f"content of type {str(kind)[:40]!r} is not supported; only text is", field=field
    )
