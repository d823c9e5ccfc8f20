"""OpenAI's responses, without a memory on this side: the request, and its translation to a conversation."""

import json
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from shoestring.errors import ConfigError
from shoestring.sampling_params import SamplingParams, StructuredOutputsParams
from shoestring.serve.backends.errors import RequestError
from shoestring.serve.backends.request import ChatRequest
from shoestring.serve.dialects.numbers import Count, TopCount, TopP
from shoestring.serve.dialects.openai_fields import (
    Defaults,
    Effort,
    chosen_function,
    effort_variable,
    refuse_fields,
    schema_form,
)

NEUTRAL_VALUES: dict[str, tuple[Any, ...]] = {
    "previous_response_id": (),
    "conversation": (),
    "background": (),
    "prompt": (),
    "moderation": (),
}
"""Fields that need a memory or a service of OpenAI's, with the values that change nothing."""
WITHOUT_EFFECT = (
    *("metadata", "store", "truncation", "user", "safety_identifier", "prompt_cache_key"),
    *("prompt_cache_retention", "service_tier", "stream_options", "client_metadata", "max_tool_calls"),
    *("context_management", "verbosity"),
)
"""Known fields that change nothing here; the reply repeats some of them."""
MAX_NAME = 64
LOGPROBS = "message.output_text.logprobs"
TEXT_PARTS = ("input_text", "output_text", "text", "reasoning_text", "summary_text")


class Reasoning(BaseModel):
    """The effort of thinking. The thinking itself is in the reply, so there is no summary of it."""

    model_config = ConfigDict(extra="allow", strict=True)
    effort: Effort | None = None
    summary: str | None = None


class ResponsesRequest(BaseModel):
    """Body of POST /v1/responses."""

    model_config = ConfigDict(extra="allow", strict=True)
    model: Annotated[str, Field(max_length=512)]
    input: str | list[dict[str, Any]]
    instructions: str | None = None
    stream: bool | None = None
    max_output_tokens: Count | None = None
    temperature: Annotated[float | None, Field(ge=0, le=2)] = None
    top_p: TopP | None = None
    top_logprobs: TopCount | None = None
    include: list[str] | None = None
    """Further parts of the reply: message.output_text.logprobs; others are not there."""
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    text: dict[str, Any] | None = None
    reasoning: Reasoning | None = None


def chat_request(body: ResponsesRequest, defaults: Defaults, *, cache_salt: str) -> ChatRequest:
    """The backend's request. Raises RequestError naming a field that is wrong or not supported."""
    refuse_fields(body, NEUTRAL_VALUES)
    tools = tuple(functions(body.tools or ()))
    names = [tool["function"]["name"] for tool in tools]
    effort = None if body.reasoning is None else body.reasoning.effort
    return ChatRequest(
        messages=tuple(_messages(body)),
        sampling=_sampling(body, defaults),
        tools=tools,
        tool_choice=_tool_choice(body.tool_choice, names),
        parallel_tool_calls=body.parallel_tool_calls is not False,
        thinking=None if effort is None else effort != "none",
        template_variables=effort_variable(effort),
        cache_salt=cache_salt,
    )


def functions(tools: Any, namespace: str | None = None) -> Iterator[dict[str, Any]]:
    """The functions among the tools, also those of a namespace; tools of other types are left out."""
    for tool in tools:
        if tool.get("type") == "namespace" and isinstance(tool.get("tools"), list):
            inside = [inner for inner in tool["tools"] if isinstance(inner, Mapping)]
            yield from functions(inside, str(tool.get("name") or ""))
        elif tool.get("type") == "function":
            if not isinstance(tool.get("name"), str):
                raise RequestError("invalid", "a tool of type function has no name", field="tools")
            function = {name: tool[name] for name in ("description", "parameters") if tool.get(name)}
            yield {"type": "function", "function": {"name": full_name(tool["name"], namespace), **function}}


def full_name(name: str, namespace: Any) -> str:
    """The name of a function for the model: with its namespace, unless that is too long for a name."""
    full = f"{namespace}.{name}" if namespace and isinstance(namespace, str) else name
    return full if len(full) <= MAX_NAME else name


def namespaces(tools: Any) -> dict[str, tuple[str, str]]:
    """Namespace and own name of each function of a namespace, by its full name."""
    return {
        full_name(str(inner.get("name")), tool.get("name")): (str(tool.get("name")), str(inner.get("name")))
        for tool in tools
        if tool.get("type") == "namespace" and isinstance(tool.get("tools"), list)
        for inner in tool["tools"]
        if isinstance(inner, Mapping)
    }


def _sampling(body: ResponsesRequest, defaults: Defaults) -> SamplingParams:
    values = {name: getattr(body, name) for name in ("temperature", "top_p")}
    values = {name: value for name, value in values.items() if value is not None}
    try:
        return SamplingParams(
            **{**defaults, **values},
            max_tokens=body.max_output_tokens,
            logprobs=_logprobs(body),
            structured_outputs=_form((body.text or {}).get("format")),
        )
    except ConfigError as error:
        raise RequestError("invalid", str(error), field=str(error).split()[0]) from None


def _logprobs(body: ResponsesRequest) -> int | None:
    """The number of likeliest tokens to show; None without logprobs."""
    if body.top_logprobs is None and LOGPROBS not in (body.include or ()):
        return None
    return body.top_logprobs or 0


def _form(text_format: Any) -> StructuredOutputsParams | None:
    kind = text_format.get("type") if isinstance(text_format, Mapping) else "text"
    if kind == "text":
        return None
    if kind == "json_object":
        return StructuredOutputsParams(json_object=True)
    if kind != "json_schema":
        message = "text.format.type must be text, json_object or json_schema"
        raise RequestError("invalid", message, field="text.format")
    return schema_form(text_format, "text.format")


def _tool_choice(choice: Any, names: list[str]) -> str:
    """The choice as a ChatRequest has it; one that names a tool that was left out is none."""
    if not names:
        return "none"
    if choice is None or choice in ("auto", "none", "required"):
        return choice or "auto"
    if isinstance(choice, Mapping) and choice.get("type") == "allowed_tools":
        return "required" if choice.get("mode") == "required" else "auto"
    if not isinstance(choice, Mapping) or choice.get("type") != "function":
        message = "tool_choice must be auto, none, required or {type: function, name: ...}"
        raise RequestError("invalid", message, field="tool_choice")
    name = full_name(chosen_function(choice), choice.get("namespace"))
    if name not in names:
        raise RequestError("invalid", f"tool_choice names {name[:64]!r}, no tool here", field="tool_choice")
    return name


def _messages(body: ResponsesRequest) -> Iterator[dict[str, Any]]:
    """The conversation; what belongs to one turn of the assistant becomes one message."""
    if body.instructions:
        yield {"role": "system", "content": body.instructions}
    if isinstance(body.input, str):
        yield {"role": "user", "content": body.input}
        return
    turn: dict[str, Any] = {}
    for item in body.input:
        kind = item.get("type", "message")
        if kind in ("reasoning", "function_call", "custom_tool_call") or (
            kind == "message" and item.get("role") == "assistant"
        ):
            _add(turn, kind, item)
            continue
        if message := _message(kind, item):
            if turn:
                yield turn
            turn = {}
            yield message
    if turn:
        yield turn


def _add(turn: dict[str, Any], kind: str, item: Mapping[str, Any]) -> None:
    """Add an item to the assistant's turn."""
    turn.setdefault("role", "assistant")
    turn.setdefault("content", None)
    if kind == "message":
        turn["content"] = (turn["content"] or "") + _text(item.get("content"))
    elif kind == "reasoning":
        thinking = _text(item.get("content") or item.get("summary") or "")
        turn["reasoning_content"] = turn.get("reasoning_content", "") + thinking
        if not turn["reasoning_content"]:
            del turn["reasoning_content"]
            turn["content"] = turn["content"] or ""
    else:
        name, arguments = item.get("name"), item.get("arguments", "{}")
        if kind == "custom_tool_call":  # another model's; its free text is what a function would be given
            arguments = json.dumps({"input": item.get("input")}, ensure_ascii=False)
        if not isinstance(name, str) or not isinstance(arguments, str):
            raise RequestError("invalid", f"a {kind} has no name or arguments", field="input")
        name = full_name(name, item.get("namespace"))
        call = {"id": str(item.get("call_id")), "type": "function"}
        turn.setdefault("tool_calls", []).append({**call, "function": {"name": name, "arguments": arguments}})


def _message(kind: str, item: Mapping[str, Any]) -> dict[str, Any] | None:
    """A message of another role; None for an item that this service cannot have written."""
    if kind == "message":
        return {"role": item.get("role"), "content": _text(item.get("content"))}
    if kind in ("function_call_output", "custom_tool_call_output"):
        output = item.get("output", "")
        text = output if isinstance(output, str) else _text(output)
        return {"role": "tool", "tool_call_id": str(item.get("call_id")), "content": text}
    if kind == "item_reference":
        raise RequestError("invalid", "there is no memory here; send the items themselves", field="input")
    return None


def _text(content: Any) -> str:
    """The text of content. Raises RequestError for parts that are none."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return "" if content is None else json.dumps(content)
    for part in content:
        if not isinstance(part, Mapping) or part.get("type") not in TEXT_PARTS:
            kind = part.get("type") if isinstance(part, Mapping) else type(part).__name__
            message = f"content of type {str(kind)[:40]!r} is not supported; only text is"
            raise RequestError("invalid", message, field="input")
    return "".join(str(part.get("text", "")) for part in content)
