"""OpenAI's chat completions: the whole reply, and the chunks of a streamed one."""

import json
import secrets
import time
from collections.abc import Iterator, Sequence
from typing import Any

import shoestring
from shoestring.serve.backends.reply import Choice, Delta, TokenLogprob, Usage, WholeReply
from shoestring.serve.dialects.openai_chat_request import ChatCompletionRequest


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
        "content": [logprob_fields(entry) for entry in logprobs if not entry.is_thinking],
        "refusal": None,
    }
    if thinking := [logprob_fields(entry) for entry in logprobs if entry.is_thinking]:
        fields["reasoning_content"] = thinking
    return fields


def logprob_fields(entry: TokenLogprob) -> dict[str, Any]:
    """One token's logprob, and those of the likeliest tokens in its place."""
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
