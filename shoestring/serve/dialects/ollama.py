"""Ollama's chat and generate: the request, and the lines of the reply."""

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from shoestring.errors import ConfigError
from shoestring.sampling_params import SamplingParams, StructuredOutputsParams
from shoestring.serve.backends.errors import RequestError
from shoestring.serve.backends.reply import Delta, FinishReason, Usage
from shoestring.serve.backends.request import ChatRequest, TextRequest
from shoestring.serve.dialects.openai_fields import Defaults

OPTIONS = {
    **{name: name for name in ("temperature", "top_p", "top_k", "min_p", "seed", "stop")},
    **{name: name for name in ("presence_penalty", "frequency_penalty")},
    "repeat_penalty": "repetition_penalty",
    "num_predict": "max_tokens",
}
"""Ollama's options with the names of SamplingParams; those of the loader change nothing."""
DONE_REASONS: dict[FinishReason, str] = {"stop": "stop", "length": "length", "tool_calls": "stop"}


class OllamaFields(BaseModel):
    """Fields of both requests. The reply is streamed unless `stream` is false."""

    model_config = ConfigDict(extra="allow", strict=True)
    model: Annotated[str, Field(max_length=512)]
    stream: bool | None = None
    format: Literal["json", ""] | dict[str, Any] | None = None
    """json, or a JSON schema."""
    options: dict[str, Any] | None = None
    think: bool | str | None = None


class OllamaMessage(BaseModel):
    """A message of the conversation."""

    model_config = ConfigDict(extra="allow", strict=True)
    role: str
    content: str | None = None
    thinking: str | None = None
    tool_calls: list[dict[str, Any]] | None = None
    images: list[str] | None = None


class OllamaChatRequest(OllamaFields):
    """Body of POST /api/chat."""

    messages: list[OllamaMessage] | None = None
    tools: list[dict[str, Any]] | None = None


class OllamaGenerateRequest(OllamaFields):
    """Body of POST /api/generate."""

    prompt: str | None = None
    suffix: str | None = None
    system: str | None = None
    raw: bool | None = None
    """Continue the prompt as it is, without the chat template."""
    images: list[str] | None = None


def chat_request(body: OllamaChatRequest, defaults: Defaults, *, cache_salt: str) -> ChatRequest:
    """The backend's request for a chat. Raises RequestError."""
    tools = tuple(body.tools or ())
    return ChatRequest(
        messages=tuple(_message(message) for message in body.messages or ()),
        sampling=_sampling(body, defaults),
        tools=tools,
        tool_choice="auto" if tools else "none",
        thinking=_thinking(body.think),
        cache_salt=cache_salt,
    )


def generate_request(
    body: OllamaGenerateRequest, defaults: Defaults, *, cache_salt: str
) -> ChatRequest | TextRequest:
    """The backend's request for a prompt: a conversation of one message, unless it is raw or has a suffix."""
    if body.images:
        raise RequestError("invalid", "images are not supported", field="images")
    sampling = _sampling(body, defaults)
    if body.raw or body.suffix:
        return TextRequest(
            prompt=body.prompt or "", sampling=sampling, suffix=body.suffix or None, cache_salt=cache_salt
        )
    messages = [{"role": "system", "content": body.system}] if body.system else []
    return ChatRequest(
        messages=(*messages, {"role": "user", "content": body.prompt or ""}),
        sampling=sampling,
        tool_choice="none",
        thinking=_thinking(body.think),
        cache_salt=cache_salt,
    )


def loaded(model: str, *, is_chat: bool) -> dict[str, Any]:
    """The reply to a request without a prompt, which only loads the model."""
    empty = {"message": {"role": "assistant", "content": ""}} if is_chat else {"response": ""}
    return {"model": model, "created_at": _now(), **empty, "done": True, "done_reason": "load"}


class OllamaLines:
    """The lines of a reply. Tool calls come whole, with their arguments as an object."""

    def __init__(self, model: str, *, is_chat: bool, start_s: float) -> None:
        self._model, self._is_chat, self._start_s = model, is_chat, start_s
        self._first_s: float | None = None
        self._calls: list[list[str]] = []
        self._usage = Usage()

    def push(self, delta: Delta, now_s: float) -> Iterator[dict[str, Any]]:
        """The lines of a delta; the last one has the counts."""
        self._first_s, self._usage = self._first_s or now_s, delta.usage
        for call in delta.tool_calls:
            if call.id:
                self._calls.append([call.name, ""])
            self._calls[-1][1] += call.arguments
        if delta.text or delta.thinking:
            yield {**self._head(), **self._content(delta.text, delta.thinking), "done": False}
        if delta.finish_reason is not None:
            if self._calls:
                calls = [
                    {"function": {"name": name, "arguments": _object(text)}} for name, text in self._calls
                ]
                message = {"role": "assistant", "content": "", "tool_calls": calls}
                yield {**self._head(), "message": message, "done": False}
            yield self._end(delta.finish_reason, now_s)

    def whole(self, lines: list[dict[str, Any]]) -> dict[str, Any]:
        """All lines as one reply."""
        whole = {**lines[-1]}
        if not self._is_chat:
            whole["response"] = "".join(line.get("response", "") for line in lines)
            thinking = "".join(line.get("thinking", "") for line in lines)
            return {**whole, "thinking": thinking} if thinking else whole
        messages = [line["message"] for line in lines]
        message = {"role": "assistant", "content": "".join(each["content"] for each in messages)}
        if thinking := "".join(each.get("thinking", "") for each in messages):
            message["thinking"] = thinking
        calls = [call for each in messages for call in each.get("tool_calls", [])]
        return {**whole, "message": {**message, "tool_calls": calls} if calls else message}

    def _head(self) -> dict[str, Any]:
        return {"model": self._model, "created_at": _now()}

    def _content(self, text: str, thinking: str) -> dict[str, Any]:
        extra = {"thinking": thinking} if thinking else {}
        if self._is_chat:
            return {"message": {"role": "assistant", "content": text, **extra}}
        return {"response": text, **extra}

    def _end(self, reason: FinishReason, now_s: float) -> dict[str, Any]:
        first_s = self._first_s or now_s
        return {
            **self._head(),
            **self._content("", ""),
            "done": True,
            "done_reason": DONE_REASONS[reason],
            "total_duration": _nanoseconds(now_s - self._start_s),
            "load_duration": 0,
            "prompt_eval_count": self._usage.prompt_tokens,
            "prompt_eval_duration": _nanoseconds(first_s - self._start_s),
            "eval_count": self._usage.completion_tokens,
            "eval_duration": _nanoseconds(now_s - first_s),
        }


def _message(message: OllamaMessage) -> dict[str, Any]:
    if message.images:
        raise RequestError("invalid", "images are not supported", field="messages")
    result: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.thinking:
        result["reasoning_content"] = message.thinking
    if message.tool_calls:
        calls = [{**call, "type": "function"} for call in message.tool_calls]
        result |= {"tool_calls": calls, "content": message.content or None}
    elif message.content is None:
        result["content"] = ""
    return result


def _thinking(think: bool | str | None) -> bool | None:
    """Whether to think: a switch, or an effort in words."""
    return think if think is None or isinstance(think, bool) else True


def _sampling(body: OllamaFields, defaults: Defaults) -> SamplingParams:
    values = {OPTIONS[name]: value for name, value in (body.options or {}).items() if name in OPTIONS}
    if isinstance(values.get("max_tokens"), int) and values["max_tokens"] < 0:
        values["max_tokens"] = None
    form = None
    if body.format == "json":
        form = StructuredOutputsParams(json_object=True)
    elif isinstance(body.format, Mapping):
        form = StructuredOutputsParams(json=body.format)
    try:
        return SamplingParams(**{"max_tokens": None, **defaults, **values}, structured_outputs=form)
    except ConfigError as error:
        raise RequestError("invalid", str(error), field="options") from None


def _object(arguments: str) -> Any:
    """Arguments as an object; empty when the reply broke off inside them."""
    try:
        return json.loads(arguments)
    except ValueError:
        return {}


def _now() -> str:
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")


def _nanoseconds(seconds: float) -> int:
    return round(seconds * 1e9)
