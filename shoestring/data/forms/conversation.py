"""A conversation from a row, whose form is told by its columns.

| columns | form |
|---|---|
| messages or conversations (role and content, or from and value), tools, system | OpenAI's, ShareGPT |
| instruction, input or context, output or response, system, history | Alpaca, Dolly |
| prompt and completion, as text or as messages, tools, system | TRL's, where only the completion is learned |

`question` and `query` are other words for prompt, `answer` and `response` for completion. Text of a prompt is
a message of the user. Rows of several forms may stand in one file.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from shoestring.data.forms.fields import Fields, json_list, json_object
from shoestring.data.forms.marks import is_marked
from shoestring.data.forms.messages import KEYS, Message, assistant, to_messages, user

FORMS = "messages, conversations, instruction with output, or prompt with completion"


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """Messages in OpenAI's form with their marks, the tools, and what of the row was not used."""

    messages: list[Message]
    tools: list[Any] | None
    unread: tuple[str, ...]
    """Columns, and keys of messages (`messages.mood`), that are not known."""


def conversation(values: Mapping[str, Any], columns: Mapping[str, str]) -> Conversation:
    """The conversation of a row. Raises ValueError with the reason where it holds none."""
    fields = Fields(values, columns)
    if "chosen" in fields and "rejected" in fields and "completion" not in columns:
        raise ValueError(
            "it is a pair of preferences; --set columns.completion=chosen learns from the better one, and "
            "`shoestring prefer` from both"
        )
    if "messages" in fields and "completion" in columns:
        messages = _joined(to_messages(fields.items("messages") or [], columns), fields)
    elif "messages" in fields:
        messages = to_messages(fields.items("messages") or [], columns)
    elif "instruction" in fields and ("output" in fields or "completion" in fields):
        messages = [*alpaca_prompt(fields), assistant(fields.text("output") or fields.text("completion"))]
    elif "prompt" in fields and "completion" in fields:
        messages = _joined(prompt_messages(fields), fields)
    elif "input" in fields and "output" in fields:
        messages = [user(fields.text("input")), assistant(fields.text("output"))]
    else:
        raise ValueError(_no_form(fields))
    if system := fields.text("system"):
        if messages[:1] and messages[0]["role"] == "system":
            raise ValueError("it has a system message and a column of one; remove one of them")
        messages.insert(0, {"role": "system", "content": system})
    tools = read_tools(fields)
    return Conversation(messages=messages, tools=tools, unread=(*fields.unread(), *unknown_keys(messages)))


def prompt_messages(fields: Fields) -> list[Message]:
    """The messages of a prompt: text becomes one of the user."""
    value = fields.get("prompt")
    value = json_list(value) if isinstance(value, str) else value
    return [user(value)] if isinstance(value, str) else to_messages(_list(value, "prompt"), fields.columns)


def alpaca_prompt(fields: Fields) -> list[Message]:
    """The messages of an instruction, as LLaMA-Factory reads it: the input follows it on the next line.

    The history, pairs of a question and an answer, comes before.
    """
    messages = []
    for turn in fields.items("history") or []:
        if not isinstance(turn, list) or len(turn) != 2 or not all(isinstance(text, str) for text in turn):
            raise ValueError('its "history" is not a list of pairs of a question and an answer')
        messages += [user(turn[0]), assistant(turn[1])]
    question = "\n".join(text for text in (fields.text("instruction"), fields.text("input")) if text)
    return [*messages, user(question)]


def reply_messages(fields: Fields, name: str) -> list[Message]:
    """The messages of a completion, or of a chosen or rejected one: text becomes one of the assistant."""
    value = fields.get(name)
    value = json_list(value) if isinstance(value, str) else value
    if isinstance(value, str):
        return [assistant(value)]
    return to_messages([value] if isinstance(value, Mapping) else _list(value, name), fields.columns)


def read_tools(fields: Fields) -> list[Any] | None:
    """The tools of a row: a list of objects, or JSON text of one. Raises ValueError."""
    tools = fields.items("tools")
    if tools is not None and not all(isinstance(tool, dict) for tool in tools):
        raise ValueError('its "tools" is not a list of objects')
    return [_tool(tool) for tool in tools] if tools else None


def _tool(tool: dict[str, Any]) -> dict[str, Any]:
    """A tool in OpenAI's form; others leave out `function` around it, or spell parameters as JSON text."""
    whole = {"type": "function", "function": tool} if "name" in tool and "function" not in tool else tool
    function = whole.get("function")
    if isinstance(function, dict) and isinstance(function.get("parameters"), str):
        return {**whole, "function": {**function, "parameters": json_object(function["parameters"])}}
    return whole


def unknown_keys(messages: list[Message]) -> list[str]:
    """Keys of messages that mean nothing here, as `messages.KEY`."""
    return [
        f"messages.{key}"
        for key in dict.fromkeys(key for message in messages for key in message)
        if key not in KEYS
    ]


def _joined(prompt: list[Message], fields: Fields) -> list[Message]:
    """A prompt, of which nothing is learned unless it is marked, and its completion."""
    reply = reply_messages(fields, "completion")
    if reply[: len(prompt)] == prompt:  # a whole conversation, as some sets of preferences have it
        reply = reply[len(prompt) :]
    context = [
        {**message, "train": False} if message["role"] == "assistant" and not is_marked(message) else message
        for message in prompt
    ]
    return [*context, *reply]


def _no_form(fields: Fields) -> str:
    names = ", ".join(str(name)[:40] for name in list(fields.values)[:8]) or "none"
    if "text" in fields.values:
        names += " (plain texts are for `shoestring pretrain`)"
    return (
        f"it has no {FORMS}, but {names}; name its columns with --set columns.prompt=COLUMN and "
        "--set columns.completion=COLUMN, or --set columns.messages=COLUMN"
    )


def _list(value: Any, name: str) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError(f"its {name!r} is a {type(value).__name__}, neither text nor messages")
    return value
