"""OpenAI's chat completions: the request, and its translation to a conversation."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from shoestring.sampling_params import StructuredOutputsParams
from shoestring.serve.backends.errors import RequestError
from shoestring.serve.backends.request import ChatRequest
from shoestring.serve.dialects.numbers import Count, TopCount
from shoestring.serve.dialects.openai_fields import (
    Defaults,
    Effort,
    SamplingFields,
    Thinking,
    chosen_function,
    effort_variable,
    refuse_fields,
    sampling_params,
    schema_form,
)

NEUTRAL_VALUES: dict[str, tuple[Any, ...]] = {
    "audio": (),
    "modalities": (["text"],),
    "functions": ([],),
    "function_call": ("none",),
    "prediction": (),
    "web_search_options": (),
    "best_of": (1,),
}
"""Fields of OpenAI's API that cannot be honored, with the values that change nothing."""
WITHOUT_EFFECT = (
    *("metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key", "verbosity"),
    *("prompt_cache_retention", "skip_special_tokens", "spaces_between_special_tokens"),
    *("include_reasoning", "moderation"),
)
"""Known fields that change nothing here."""


class ContentPart(BaseModel):
    """A part of a message's content; only text is supported."""

    model_config = ConfigDict(extra="allow", strict=True)
    type: str
    text: str | None = None


class ChatMessage(BaseModel):
    """A message of the conversation."""

    model_config = ConfigDict(extra="allow", strict=True)
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[ContentPart] | None = None
    name: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[dict[str, Any]] | None = None
    tool_call_id: str | None = None
    prefix: bool | None = None
    """DeepSeek's: continue this message, which is the last one and the assistant's."""

    @property
    def text(self) -> str:
        """Its content as text."""
        if isinstance(self.content, list):
            return "".join(part.text or "" for part in self.content)
        return self.content or ""


class ChatCompletionRequest(SamplingFields):
    """Body of POST /v1/chat/completions."""

    messages: Annotated[list[ChatMessage], Field(min_length=1)]
    max_completion_tokens: Count | None = None
    logprobs: bool | None = None
    top_logprobs: TopCount | None = None
    response_format: dict[str, Any] | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    reasoning_effort: Effort | None = None
    thinking: Thinking | None = None
    """DeepSeek's switch."""
    chat_template_kwargs: dict[str, Any] | None = None
    continue_final_message: bool | None = None
    add_generation_prompt: bool | None = None


def chat_request(body: ChatCompletionRequest, defaults: Defaults, *, cache_salt: str) -> ChatRequest:
    """The backend's request. Raises RequestError naming a field that is wrong or not supported."""
    refuse_fields(body, NEUTRAL_VALUES)
    messages = tuple(message.model_dump(exclude_unset=True) for message in body.messages)
    last = body.messages[-1]
    if any(message.prefix for message in body.messages[:-1]) or (last.prefix and last.role != "assistant"):
        raise RequestError(
            "invalid", "prefix belongs to the last message, of the assistant", field="messages"
        )
    if body.continue_final_message and body.add_generation_prompt:
        message = "continue_final_message and add_generation_prompt exclude each other"
        raise RequestError("invalid", message, field="continue_final_message")
    if body.top_logprobs is not None and not body.logprobs:
        raise RequestError("invalid", "top_logprobs needs logprobs = true", field="top_logprobs")
    return ChatRequest(
        messages=tuple({k: v for k, v in message.items() if k != "prefix"} for message in messages),
        sampling=sampling_params(
            body,
            defaults,
            max_tokens=body.max_completion_tokens or body.max_tokens,
            logprobs=(body.top_logprobs or 0) if body.logprobs else None,
            form=_form(body.response_format),
        ),
        tools=tuple(body.tools or ()),
        tool_choice=_tool_choice(body),
        parallel_tool_calls=body.parallel_tool_calls is not False,
        thinking=asks_thinking(body),
        continue_final_message=bool(last.prefix or body.continue_final_message),
        template_variables={**effort_variable(body.reasoning_effort), **(body.chat_template_kwargs or {})},
        cache_salt=cache_salt,
    )


def _form(response_format: dict[str, Any] | None) -> StructuredOutputsParams | None:
    kind = (response_format or {}).get("type", "text")
    if response_format is None or kind == "text":
        return None
    if kind == "json_object" and "schema" in response_format:  # llama.cpp's way
        return schema_form(response_format, "response_format")
    if kind == "json_object":
        return StructuredOutputsParams(json_object=True)
    if kind != "json_schema":
        message = f"response_format.type = {str(kind)[:40]!r} must be text, json_object or json_schema"
        raise RequestError("invalid", message, field="response_format")
    return schema_form(response_format.get("json_schema"), "response_format.json_schema")


def _tool_choice(body: ChatCompletionRequest) -> str:
    choice = body.tool_choice
    if choice is None:
        return "auto" if body.tools else "none"
    if isinstance(choice, str):
        if choice not in ("auto", "none", "required"):
            message = "tool_choice must be auto, none, required or {type: function, function: {name: ...}}"
            raise RequestError("invalid", message, field="tool_choice")
        if choice == "required" and not body.tools:
            raise RequestError("invalid", "tool_choice = required needs tools", field="tool_choice")
        return choice if body.tools else "none"
    name = chosen_function(choice)
    tools = [tool.get("function") for tool in body.tools or ()]
    if name not in [tool.get("name") for tool in tools if isinstance(tool, dict)]:
        raise RequestError("invalid", f"tool_choice names {name[:64]!r}, no tool here", field="tool_choice")
    return name


def asks_thinking(body: ChatCompletionRequest) -> bool | None:
    """Whether to think: DeepSeek's switch, or OpenAI's effort; None for the model's default."""
    if body.thinking is not None:
        return body.thinking.is_on
    if body.reasoning_effort is not None:
        return body.reasoning_effort != "none"
    return None
