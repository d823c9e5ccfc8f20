"""Messages in OpenAI's form from those of others: ShareGPT's from and value, function calls, parts, marks."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from shoestring.data.forms.fields import ALIASES

ROLES: Mapping[str, str] = {
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("user", "human", "prompter"), "user"),
    **dict.fromkeys(
        ("assistant", "gpt", "chatgpt", "bing", "bard", "bot", "model", "function_call"), "assistant"
    ),
    **dict.fromkeys(("tool", "function", "observation", "function_response", "ipython"), "tool"),
}
"""Our role for each spelling of one."""
KEYS = frozenset(
    {"role", "content", "reasoning_content", "reasoning", "thinking", "tool_calls", "tool_call_id", "name"}
    | {"function_call", "weight", "train", "train_detail"}
)
"""Keys of a message that mean something; others are given to the template as they are."""

OTHER_MARKS = {"loss_weight": "weight", "loss": "train", "training": "train"}
"""Names that LLaMA-Factory, ms-swift and older axolotl have for a mark."""

Message = dict[str, Any]


def to_messages(items: Sequence[Any], columns: Mapping[str, str]) -> list[Message]:
    """Messages with role and content; marks stay in them. Raises ValueError for what is not a message."""
    return [to_message(item, columns, f"message {number}") for number, item in enumerate(items)]


def to_message(item: Any, columns: Mapping[str, str], name: str) -> Message:
    """One message in OpenAI's form; keys without a value vanish, as parquet has them everywhere."""
    if not isinstance(item, Mapping):
        raise ValueError(f"{name} is a {type(item).__name__}, not an object with role and content")
    role_key, content_key = (_key(item, columns, key) for key in ("role", "content"))
    spelling = str(item.get(role_key)).strip()
    role = ROLES.get(spelling.lower())
    if role is None:
        raise ValueError(f"{name} has the role {item.get(role_key)!r}; known are {', '.join(ROLES)}")
    others = {k: v for k, v in item.items() if k not in (role_key, content_key) and v is not None}
    message = {"role": role, "content": item.get(content_key), **others}
    if isinstance(message["content"], list):
        message |= _sorted_parts(message, name)
    for key, mark in OTHER_MARKS.items():
        if (value := message.pop(key, None)) is not None:
            message.setdefault(mark, value)
    if spelling.lower() == "function_call":  # ShareGPT's: the content is the call
        message |= {"content": None, "tool_calls": _calls(message["content"], name)}
    if call := message.pop("function_call", None):  # OpenAI's, before tools
        message["tool_calls"] = [{"type": "function", "function": call}]
    if thinking := message.get("thinking"):
        message.setdefault("reasoning_content", thinking)
    return message


def _sorted_parts(message: Message, name: str) -> Message:
    """Parts of a content by kind: thinking (Mistral, LLaMA-Factory), calls of tools, and the rest."""
    thinking: list[Any] = []
    calls: list[Any] = []
    rest: list[Any] = []
    for part in message["content"]:
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind in ("reasoning", "thinking"):
            inner = part.get("thinking")
            thinking += inner if isinstance(inner, list) else [{**part, "type": "text"}]
        elif kind == "tool_call":
            calls += _calls(part.get("value", part.get("text")), name)
        else:
            rest.append(part)
    more: Message = {"content": rest if rest or not (thinking or calls) else None}
    if thinking:
        more["reasoning_content"] = thinking
    return {**more, "tool_calls": calls} if calls else more


def user(text: str) -> Message:
    """A message of the user."""
    return {"role": "user", "content": text}


def assistant(text: str) -> Message:
    """A message of the assistant."""
    return {"role": "assistant", "content": text}


def _key(item: Mapping[str, Any], columns: Mapping[str, str], name: str) -> str:
    names = (columns[name],) if name in columns else ALIASES[name]
    return next((key for key in names if key in item), names[0])


def _calls(text: Any, name: str) -> list[dict[str, Any]]:
    """Tool calls from JSON text: one object with name and arguments, or a list of them."""
    try:
        value = json.loads(text) if isinstance(text, str) else text
    except (ValueError, RecursionError):
        value = None
    calls = value if isinstance(value, list) else [value]
    if not calls or not all(isinstance(call, dict) and isinstance(call.get("name"), str) for call in calls):
        raise ValueError(f"{name} has a call of a function that is not JSON of a name and arguments")
    return [{"type": "function", "function": call} for call in calls]
