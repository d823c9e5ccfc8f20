"""Parts of a message that a chat template has to write, looked for in what it wrote, white space aside."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from shoestring.data.forms.messages import Message
from shoestring.tokenizer.thinking import split_thinking

Part = tuple[str, str]
"""Name and text of a part of a message: its thinking, its content, or a word of its tool calls."""


def is_written(part: Part, where: str) -> bool:
    """Return whether a part is in `where`, a text without white space; tool calls may be JSON there."""
    return any(squeezed(spelling) in where for spelling in _spellings(*part))


def squeezed(text: str) -> str:
    """The text without white space."""
    return "".join(text.split())


def parts(message: Message) -> Iterator[tuple[str, str]]:
    """Name and text of every part of a message that a template has to write."""
    content = message.get("content")
    reasoning = message.get("reasoning_content") or message.get("reasoning")
    if isinstance(reasoning, str):
        yield "reasoning_content", reasoning
    if isinstance(content, str):
        thinking, answer = split_thinking(content)
        if thinking is not None:
            yield "thinking in the content", thinking
        yield "content", answer
    for call in message.get("tool_calls") or []:
        function = call.get("function", {}) if isinstance(call, Mapping) else {}
        yield "tool_calls", str(function.get("name", ""))
        arguments = function.get("arguments")
        for leaf in _leaves(_parsed(arguments) if isinstance(arguments, str) else arguments):
            yield "tool_calls", leaf


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _leaves(value: Any) -> Iterator[str]:
    """The texts, names and numbers within a JSON value."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield str(key)
            yield from _leaves(item)
    elif isinstance(value, list):
        for item in value:
            yield from _leaves(item)
    elif isinstance(value, str):
        yield value
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield str(value)


def _spellings(name: str, text: str) -> Iterator[str]:
    yield text
    if name == "tool_calls":
        yield json.dumps(text)[1:-1]
        yield json.dumps(text, ensure_ascii=False)[1:-1]
