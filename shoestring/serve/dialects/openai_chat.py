"""OpenAI's chat completions: the request, the whole reply, and its chunks."""

import json
import secrets
import time
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

import shoestring
from shoestring.sampling_params import StructuredOutputsParams
from shoestring.serve.backends.errors import RequestError
from shoestring.serve.backends.reply import Choice, Delta, TokenLogprob, Usage, WholeReply
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


class ChatChunks:
    """The chunks of a streamed reply, in OpenAI's order, or with DeepSeek's usage on the last choice."""

    def __init__(self, body: ChatCompletionRequest, model: str, *, usage_on_choice: bool = False) -> None:
        self._head = head(model, "chat.completion.chunk")
        self._asks_usage = bool(body.stream_options and body.stream_options.include_usage)
        self._usage_on_choice = usage_on_choice
        self._num_open = body.n or 1
        self._open_choices: set[int] = set()
        self._usage = Usage()

    def push(self, delta: Delta) -> Iterator[dict[str, Any]]:
        """The chunks of a delta."""
        self._usage = delta.usage
        fields: dict[str, Any] = {}
        if delta.choice not in self._open_choices:
            self._open_choices.add(delta.choice)
            yield self._chunk(delta.choice, {"role": "assistant", "content": ""})
        if delta.thinking:
            fields |= {"reasoning_content": delta.thinking, "reasoning": delta.thinking}
        if delta.text:
            fields["content"] = delta.text
        if delta.tool_calls:
            fields["tool_calls"] = [_call_delta(call) for call in delta.tool_calls]
        if fields or delta.logprobs:
            yield self._chunk(delta.choice, fields, logprobs=delta.logprobs)
        if delta.finish_reason is not None:
            self._num_open -= 1
            chunk = self._chunk(delta.choice, {}, finish_reason=delta.finish_reason)
            chunk["choices"][0] |= stop_fields(delta.stop_sequence)
            if self._usage_on_choice and not self._num_open:
                chunk["usage"] = usage_fields(self._usage)
            yield chunk

    def finish(self) -> Iterator[dict[str, Any]]:
        """The chunk of the usage, if it was asked for and has not come."""
        if self._asks_usage and not self._usage_on_choice:
            yield {**self._head, "choices": [], "usage": usage_fields(self._usage)}

    def _chunk(
        self,
        index: int,
        fields: dict[str, Any],
        *,
        logprobs: Sequence[TokenLogprob] = (),
        finish_reason: str | None = None,
    ) -> dict[str, Any]:
        choice = {
            "index": index,
            "delta": fields,
            "logprobs": logprobs_fields(logprobs) if logprobs else None,
            "finish_reason": finish_reason,
        }
        chunk = {**self._head, "choices": [choice]}
        return {**chunk, "usage": None} if self._asks_usage else chunk


def chat_completion(whole: WholeReply, model: str) -> dict[str, Any]:
    """The body of a whole reply."""
    choices = [
        {
            "index": index,
            "message": _message(choice),
            "logprobs": logprobs_fields(choice.logprobs) if choice.logprobs else None,
            "finish_reason": choice.finish_reason,
            **stop_fields(choice.stop_sequence),
        }
        for index, choice in enumerate(whole.choices)
    ]
    return {**head(model, "chat.completion"), "choices": choices, "usage": usage_fields(whole.usage)}


def head(model: str, kind: str, prefix: str = "chatcmpl") -> dict[str, Any]:
    """The fields that every body begins with, the same in all chunks of a reply."""
    return {
        "id": f"{prefix}-{secrets.token_hex(12)}",
        "object": kind,
        "created": int(time.time()),
        "model": model,
        "system_fingerprint": f"shoestring-{shoestring.__version__}",
    }


def stop_fields(stop_sequence: str | None) -> dict[str, str]:
    """vLLM's field for the stop string that ended a choice."""
    return {} if stop_sequence is None else {"stop_reason": stop_sequence}


def usage_fields(usage: Usage) -> dict[str, Any]:
    """Usage in OpenAI's fields and DeepSeek's."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "prompt_cache_hit_tokens": usage.cached_tokens,
        "prompt_cache_miss_tokens": usage.prompt_tokens - usage.cached_tokens,
    }


def logprobs_fields(logprobs: Sequence[TokenLogprob]) -> dict[str, Any]:
    """Logprobs of the answer's tokens, and DeepSeek's field for those of the thinking."""
    fields: dict[str, Any] = {
        "content": [_logprob(entry) for entry in logprobs if not entry.is_thinking],
        "refusal": None,
    }
    if thinking := [_logprob(entry) for entry in logprobs if entry.is_thinking]:
        fields["reasoning_content"] = thinking
    return fields


def _logprob(entry: TokenLogprob) -> dict[str, Any]:
    return {**_token(entry), "top_logprobs": [_token(other) for other in entry.top]}


def _token(entry: TokenLogprob) -> dict[str, Any]:
    return {"token": entry.token, "logprob": finite(entry.logprob), "bytes": list(entry.token_bytes)}


def finite(logprob: float | None) -> float | None:
    """A logprob for JSON, which has no infinity."""
    return None if logprob is None else max(logprob, -9999.0)


def _call_delta(call: Any) -> dict[str, Any]:
    if call.id:
        function = {"name": call.name, "arguments": call.arguments}
        return {"index": call.index, "id": call.id, "type": "function", "function": function}
    return {"index": call.index, "function": {"arguments": call.arguments}}


def _message(choice: Choice) -> dict[str, Any]:
    message: dict[str, Any] = {
        "role": "assistant",
        "content": choice.text,
        "refusal": None,
        "annotations": [],
    }
    if choice.thinking:
        message |= {"reasoning_content": choice.thinking, "reasoning": choice.thinking}
    if choice.tool_calls:
        message["content"] = choice.text or None
        message["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in choice.tool_calls
        ]
    return message


def event(data: dict[str, Any]) -> str:
    """One chunk as JSON on one line."""
    return json.dumps(data, ensure_ascii=False, separators=(",", ":"))
