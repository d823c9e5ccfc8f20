"""OpenAI's responses: the items of a reply, made once for the whole and the streamed one, and its events."""

import secrets
import time
from collections.abc import Iterator
from typing import Any, Literal

from shoestring.serve.backends.reply import Delta, ToolCallDelta, Usage
from shoestring.serve.dialects.openai_chat_reply import logprob_fields
from shoestring.serve.dialects.responses_request import ResponsesRequest, namespaces

Event = dict[str, Any]
Item = dict[str, Any]
Status = Literal["in_progress", "completed", "incomplete", "failed"]


class ResponseEvents:
    """The events of a reply, and the response that they build up."""

    def __init__(self, body: ResponsesRequest, model: str) -> None:
        self.response = _response(body, model)
        self._namespaces = namespaces(body.tools or ())
        self._number = -1
        self._item: Item | None = None
        self._part: dict[str, Any] | None = None
        self._logprobs: list[dict[str, Any]] = []
        """Those of tokens whose text has not come yet."""
        self._usage = Usage()

    def begin(self) -> Iterator[Event]:
        """The events before the first delta."""
        yield self._lifecycle("response.created")
        yield self._lifecycle("response.in_progress")

    def push(self, delta: Delta) -> Iterator[Event]:
        """The events of a delta."""
        self._usage = delta.usage
        self._logprobs += [logprob_fields(entry) for entry in delta.logprobs if not entry.is_thinking]
        if delta.thinking:
            yield from self._text("reasoning", "reasoning_text", delta.thinking)
        if delta.text:
            yield from self._text("message", "output_text", delta.text)
        for call in delta.tool_calls:
            yield from self._call(call)
        if delta.finish_reason is not None:
            is_cut = delta.finish_reason == "length"
            yield from self._close("incomplete" if is_cut else "completed")
            self.response["status"] = "incomplete" if is_cut else "completed"
            if is_cut:
                self.response["incomplete_details"] = {"reason": "max_output_tokens"}

    def finish(self) -> Iterator[Event]:
        """The last event: the whole response."""
        self.response["usage"] = usage_fields(self._usage)
        if self.response["status"] == "completed":
            self.response["completed_at"] = int(time.time())
        yield self._lifecycle(f"response.{self.response['status']}")

    def fail(self, message: str) -> Iterator[Event]:
        """The last event after an error on the way."""
        self.response |= {"status": "failed", "error": {"code": "server_error", "message": message}}
        yield self._lifecycle("response.failed")

    def _text(self, kind: str, part_type: str, text: str) -> Iterator[Event]:
        """Events of new text in an item of this kind, which begins if it is not open."""
        if self._item is None or self._item["type"] != kind:
            yield from self._close()
            content: list[Any] = []
            fields: Item = {"role": "assistant"}
            if kind == "reasoning":
                fields = {"summary": []}
            yield self._open({"type": kind, **fields, "content": content})
            self._part = {"type": part_type, "text": ""}
            if part_type == "output_text":
                self._part |= {"annotations": [], "logprobs": []}
            yield self._part_event("response.content_part.added", part={**self._part})
            content.append(self._part)
        assert self._part is not None
        self._part["text"] += text
        yield self._part_event(f"response.{part_type}.delta", delta=text, **self._new_logprobs())

    def _call(self, call: ToolCallDelta) -> Iterator[Event]:
        if call.id:
            yield from self._close()
            yield self._open(
                {"type": "function_call", "call_id": call.id, **self._name(call), "arguments": ""}
            )
        if call.arguments:
            assert self._item is not None
            self._item["arguments"] += call.arguments
            yield self._item_event("response.function_call_arguments.delta", delta=call.arguments)

    def _name(self, call: ToolCallDelta) -> dict[str, str]:
        """The name of a called function, as the client knows it."""
        if call.name not in self._namespaces:
            return {"name": call.name}
        namespace, name = self._namespaces[call.name]
        return {"name": name, "namespace": namespace}

    def _open(self, item: Item) -> Event:
        prefix = {"reasoning": "rs", "message": "msg", "function_call": "fc"}[item["type"]]
        self._item = {"id": f"{prefix}_{secrets.token_hex(12)}", "status": "in_progress", **item}
        self.response["output"].append(self._item)
        added = {**self._item, **({"content": []} if "content" in item else {})}
        return self._event("response.output_item.added", output_index=self._index, item=added)

    def _close(self, status: Status = "completed") -> Iterator[Event]:
        """End the open item, if there is one."""
        if self._item is None:
            return
        if self._part is not None:
            self._new_logprobs()
            name = self._part["type"]
            whole = {field: self._part[field] for field in ("text", "logprobs") if field in self._part}
            yield self._part_event(f"response.{name}.done", **whole)
            yield self._part_event("response.content_part.done", part={**self._part})
        elif self._item["type"] == "function_call":
            fields = {"name": self._item["name"], "arguments": self._item["arguments"]}
            yield self._item_event("response.function_call_arguments.done", **fields)
        self._item["status"] = status
        item = {**self._item}
        yield self._event("response.output_item.done", output_index=self._index, item=item)
        self._item = self._part = None

    @property
    def _index(self) -> int:
        return len(self.response["output"]) - 1

    def _new_logprobs(self) -> dict[str, Any]:
        """The logprobs that came since the last event, now those of the open text too."""
        if self._part is None or self._part["type"] != "output_text":
            return {}
        new, self._logprobs = self._logprobs, []
        self._part["logprobs"] = self._part["logprobs"] + new
        return {"logprobs": new}

    def _part_event(self, kind: str, **fields: Any) -> Event:
        return self._item_event(kind, content_index=0, **fields)

    def _item_event(self, kind: str, **fields: Any) -> Event:
        assert self._item is not None
        return self._event(kind, item_id=self._item["id"], output_index=self._index, **fields)

    def _lifecycle(self, kind: str) -> Event:
        response = {**self.response, "output": [{**item} for item in self.response["output"]]}
        return self._event(kind, response=response)

    def _event(self, kind: str, **fields: Any) -> Event:
        self._number += 1
        return {"type": kind, "sequence_number": self._number, **fields}


def usage_fields(usage: Usage) -> dict[str, Any]:
    """Usage in the fields of responses."""
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.total_tokens,
    }


def _response(body: ResponsesRequest, model: str) -> dict[str, Any]:
    """The response before its first item; fields of the request are repeated, as official schemas require."""
    extra = body.model_extra or {}
    return {
        "id": f"resp_{secrets.token_hex(12)}",
        "object": "response",
        "created_at": int(time.time()),
        "completed_at": None,
        "status": "in_progress",
        "model": model,
        "output": [],
        "usage": None,
        "error": None,
        "incomplete_details": None,
        "instructions": body.instructions,
        "previous_response_id": None,
        "tools": [_tool(tool) for tool in body.tools or () if tool.get("type") == "function"],
        "tool_choice": body.tool_choice or "auto",
        "parallel_tool_calls": body.parallel_tool_calls is not False,
        "text": {"format": (body.text or {}).get("format") or {"type": "text"}},
        "reasoning": {
            "effort": body.reasoning and body.reasoning.effort,
            "summary": body.reasoning and body.reasoning.summary,
        },
        "temperature": 1.0 if body.temperature is None else body.temperature,
        "top_p": 1.0 if body.top_p is None else body.top_p,
        "top_logprobs": body.top_logprobs or 0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "max_output_tokens": body.max_output_tokens,
        "max_tool_calls": extra.get("max_tool_calls"),
        "truncation": "disabled",
        "store": False,
        "background": False,
        "service_tier": "default",
        "metadata": extra.get("metadata") or {},
        "safety_identifier": extra.get("safety_identifier"),
        "prompt_cache_key": extra.get("prompt_cache_key"),
    }


def _tool(tool: dict[str, Any]) -> dict[str, Any]:
    """A function's definition with the fields that the official schema requires."""
    return {"description": None, "parameters": None, "strict": None, **tool}
