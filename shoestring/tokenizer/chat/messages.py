"""Messages of a conversation: checked, and converted to one form."""

from collections.abc import Mapping, Sequence
from typing import Any

from shoestring.errors import TokenizerError

ROLES = ("system", "user", "assistant", "tool")

Message = Mapping[str, Any]


def check_messages(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Check messages and convert them to one form. Raises TokenizerError naming the message that is wrong.

    `developer` becomes `system`, a list of text parts becomes their text, `reasoning` (the word of some
    servers) becomes `reasoning_content`, and keys without a value vanish, except content. Roles and types of
    calls come from fixed lists, so no other text can reach a template through them.
    """
    if not messages:
        raise TokenizerError("the conversation is empty; it needs at least one message")
    return [_check_message(message, f"message {number}") for number, message in enumerate(messages)]


def _check_message(message: Message, name: str) -> dict[str, Any]:
    if not isinstance(message, Mapping):
        raise TokenizerError(f"{name} is a {type(message).__name__}, not an object with role and content")
    result = {key: value for key, value in message.items() if key != "reasoning" and value is not None}
    role = "system" if message.get("role") == "developer" else message.get("role")
    if role not in ROLES:
        raise TokenizerError(f"{name} has the role {role!r}; the roles are {', '.join(ROLES)}")
    result["role"] = role
    result["content"] = _check_content(message.get("content"), name)
    reasoning = message.get("reasoning_content") or message.get("reasoning")
    if reasoning is not None:
        result["reasoning_content"] = _check_content(reasoning, f"the reasoning of {name}")
    if calls := message.get("tool_calls"):
        if role != "assistant" or not isinstance(calls, Sequence):
            raise TokenizerError(f"{name} has tool_calls; only an assistant message may have them, as a list")
        result["tool_calls"] = [_check_call(call, f"tool call {i} of {name}") for i, call in enumerate(calls)]
    elif result["content"] is None and not (role == "assistant" and result.get("reasoning_content")):
        raise TokenizerError(f"{name} ({role}) has no content")
    return {key: value for key, value in result.items() if key != "tool_calls" or value}


def _check_content(content: Any, name: str) -> str | None:
    if content is None or isinstance(content, str):
        return content
    parts = content if isinstance(content, Sequence) else [content]
    if not all(
        isinstance(p, Mapping) and p.get("type") == "text" and isinstance(p.get("text"), str) for p in parts
    ):
        raise TokenizerError(f"{name} has content that is not text; use a string or parts of type text")
    return "".join(part["text"] for part in parts)


def _check_call(call: Any, name: str) -> dict[str, Any]:
    function = call.get("function") if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise TokenizerError(f"{name} has no function with a name")
    if call.get("type", "function") != "function":
        raise TokenizerError(f"{name} has the type {call['type']!r}; the only type is function")
    arguments = "{}" if function.get("arguments") is None else function["arguments"]
    if not isinstance(arguments, str | Mapping):
        raise TokenizerError(f"{name} has arguments that are neither a JSON string nor an object")
    return {**call, "type": "function", "function": {**function, "arguments": arguments}}
