"""Anthropic's messages: the whole reply, and the events of a streamed one."""

import hashlib
import json
import secrets
from collections.abc import Iterator
from typing import Any, Literal

from shoestring.serve.backends.reply import Choice, Delta, FinishReason, Usage

Event = dict[str, Any]
BlockType = Literal["thinking", "text", "tool_use"]

STOP_REASONS: dict[FinishReason, str] = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
}


class MessageEvents:
    """The events of a reply, and the message that they build up: thinking, text and tool use in blocks."""

    def __init__(self, model: str, prompt_tokens: int, *, shows_thinking: bool) -> None:
        usage = usage_fields(Usage(prompt_tokens=prompt_tokens))
        self.message = {**_head(model), "content": [], **_end(Choice()), "usage": usage}
        self._shows_thinking = shows_thinking
        self._open: BlockType | None = None
        self._texts: list[str] = []
        """The text of the open block: thinking also where it is not shown, arguments as JSON."""
        self._usage = Usage(prompt_tokens=prompt_tokens)
        self._choice = Choice()

    def begin(self) -> Iterator[Event]:
        """The events before the first delta."""
        yield {"type": "message_start", "message": {**self.message, "content": []}}
        yield {"type": "ping"}

    def push(self, delta: Delta) -> Iterator[Event]:
        """The events of a delta."""
        self._usage = delta.usage
        self._choice.finish_reason = delta.finish_reason or self._choice.finish_reason
        self._choice.stop_sequence = delta.stop_sequence or self._choice.stop_sequence
        if delta.thinking:
            yield from self._switch("thinking", {"type": "thinking", "thinking": "", "signature": ""})
            self._texts.append(delta.thinking)
            if self._shows_thinking:
                yield self._delta({"type": "thinking_delta", "thinking": delta.thinking})
        if delta.text:
            yield from self._switch("text", {"type": "text", "text": "", "citations": None})
            self._texts.append(delta.text)
            yield self._delta({"type": "text_delta", "text": delta.text})
        for call in delta.tool_calls:
            if call.id:
                yield from self._close()
                yield from self._switch("tool_use", _tool_use(call.id, call.name))
            if call.arguments:
                self._texts.append(call.arguments)
                yield self._delta({"type": "input_json_delta", "partial_json": call.arguments})

    def finish(self) -> Iterator[Event]:
        """The events after the last delta."""
        yield from self._close()
        end, usage = _end(self._choice), usage_fields(self._usage)
        self.message |= {**end, "usage": usage}
        yield {"type": "message_delta", "delta": end, "usage": usage}
        yield {"type": "message_stop"}

    def _switch(self, kind: BlockType, block: dict[str, Any]) -> Iterator[Event]:
        """Begin a block, unless one of its kind is open."""
        if self._open == kind:
            return
        yield from self._close()
        self._open, self._texts = kind, []
        self.message["content"].append(block)
        yield {"type": "content_block_start", "index": self._index, "content_block": {**block}}

    def _close(self) -> Iterator[Event]:
        """End the open block, if there is one."""
        if self._open is None:
            return
        block, text = self.message["content"][-1], "".join(self._texts)
        if self._open == "thinking":
            block |= {"thinking": text if self._shows_thinking else "", "signature": signature(text)}
            yield self._delta({"type": "signature_delta", "signature": block["signature"]})
        elif self._open == "text":
            block["text"] = text
        else:
            block["input"] = _arguments(text)
        yield {"type": "content_block_stop", "index": self._index}
        self._open = None

    @property
    def _index(self) -> int:
        return len(self.message["content"]) - 1

    def _delta(self, delta: dict[str, Any]) -> Event:
        return {"type": "content_block_delta", "index": self._index, "delta": delta}


def usage_fields(usage: Usage) -> dict[str, Any]:
    """Usage in Anthropic's fields: input_tokens are those that did not come from the cache."""
    return {
        "input_tokens": usage.prompt_tokens - usage.cached_tokens,
        "output_tokens": usage.completion_tokens,
        "cache_read_input_tokens": usage.cached_tokens,
        "cache_creation_input_tokens": 0,
        "cache_creation": None,
        "inference_geo": None,
        "output_tokens_details": None,
        "server_tool_use": None,
        "service_tier": "standard",
    }


def signature(thinking: str) -> str:
    """A signature of thinking: clients send it back with the block; nothing here depends on it."""
    return hashlib.sha256(thinking.encode()).hexdigest()


def _head(model: str) -> dict[str, Any]:
    return {
        "id": f"msg_{secrets.token_hex(12)}",
        "type": "message",
        "role": "assistant",
        "model": model,
        "container": None,
    }


def _end(choice: Choice) -> dict[str, Any]:
    reason = STOP_REASONS[choice.finish_reason] if choice.finish_reason else None
    if choice.stop_sequence is not None and reason == "end_turn":
        reason = "stop_sequence"
    return {
        "stop_reason": reason,
        "stop_sequence": choice.stop_sequence,
        "stop_details": None,
    }


def _tool_use(call_id: str, name: str) -> dict[str, Any]:
    return {
        "type": "tool_use",
        "id": call_id.replace("call_", "toolu_"),
        "name": name,
        "input": {},
        "caller": {"type": "direct"},
    }


def _arguments(arguments: str) -> dict[str, Any]:
    """The arguments as an object; empty when the reply broke off inside them."""
    try:
        value = json.loads(arguments)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
