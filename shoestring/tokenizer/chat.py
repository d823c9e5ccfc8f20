"""Messages -> ids and loss mask: the door to chat templates, ours and strangers'."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from shoestring.errors import TokenizerError
from shoestring.tokenizer.bpe import Tokenizer

ROLES = ("system", "user", "assistant", "tool")

Message = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Piece:
    """A run of a rendered conversation: one special token, or text that can never become one."""

    text: str
    special: bool = False
    in_loss: bool = False


@dataclass(frozen=True, kw_only=True)
class ChatIds:
    """A conversation as ids; `loss_mask[i]` says whether the model learns to produce `ids[i]`."""

    ids: list[int] = field(default_factory=list)
    loss_mask: list[bool] = field(default_factory=list)


class Template(Protocol):
    """What turns checked messages into pieces: DeepSeekTemplate (ours) and JinjaTemplate (anyone's)."""

    @property
    def name(self) -> str: ...

    def render(
        self,
        messages: Sequence[Message],
        *,
        add_generation_prompt: bool = False,
        tools: Sequence[Message] | None = None,
        thinking: bool | None = None,
        with_loss: bool = True,
    ) -> list[Piece]:
        """Pieces of the conversation.

        `add_generation_prompt` ends it where the assistant's next turn begins. `thinking` asks for, or
        refuses, thinking before the answer (None: the template's own default). `with_loss=False` may
        save work when only the text matters. Raises TokenizerError for a message or a template that
        cannot be rendered.
        """
        ...


def encode_chat(
    messages: Sequence[Message],
    tokenizer: Tokenizer,
    template: Template,
    *,
    tools: Sequence[Message] | None = None,
    thinking: bool | None = None,
) -> ChatIds:
    """A whole conversation for training: the mask holds each assistant turn's content and its end token."""
    return encode_pieces(template.render(messages, tools=tools, thinking=thinking), tokenizer)


def encode_prompt(
    messages: Sequence[Message],
    tokenizer: Tokenizer,
    template: Template,
    *,
    tools: Sequence[Message] | None = None,
    thinking: bool | None = None,
) -> list[int]:
    """Ids that ask the model for the assistant's next turn."""
    pieces = template.render(
        messages, add_generation_prompt=True, tools=tools, thinking=thinking, with_loss=False
    )
    return encode_pieces(pieces, tokenizer).ids


def encode_pieces(pieces: Iterable[Piece], tokenizer: Tokenizer) -> ChatIds:
    """Pieces as ids.

    Neighboring texts are encoded as one, except where the loss begins or ends: there the prompt ends
    when the model is served, so a token must not reach across in training either.
    """
    return encode_many([pieces], tokenizer)[0]


def encode_many(conversations: Iterable[Iterable[Piece]], tokenizer: Tokenizer) -> list[ChatIds]:
    """`encode_pieces` of each; three times as fast for many short ones."""
    merged = [merge_pieces(pieces) for pieces in conversations]
    texts = [piece.text for pieces in merged for piece in pieces if not piece.special]
    encoded = iter(tokenizer.encode_batch(texts))
    results = []
    for pieces in merged:
        result = ChatIds()
        for piece in pieces:
            ids = [tokenizer.special_id(piece.text)] if piece.special else next(encoded)
            result.ids.extend(ids)
            result.loss_mask.extend([piece.in_loss] * len(ids))
        results.append(result)
    return results


def merge_pieces(pieces: Iterable[Piece]) -> list[Piece]:
    """Join neighboring texts that agree on the loss; drop empty ones."""
    merged: list[Piece] = []
    for piece in pieces:
        last = merged[-1] if merged else None
        if last and not last.special and not piece.special and last.in_loss == piece.in_loss:
            merged[-1] = Piece(text=last.text + piece.text, in_loss=piece.in_loss)
        elif piece.text:
            merged.append(piece)
    return merged


def pieces_text(pieces: Iterable[Piece]) -> str:
    """The rendered conversation as one string, for people to read."""
    return "".join(piece.text for piece in pieces)


def prefix_break(earlier: str, later: str) -> str | None:
    """None when `later` begins with `earlier`; else where they part, as a clause for an error."""
    if later.startswith(earlier):
        return None
    pairs = enumerate(zip(earlier, later, strict=False))
    place = next((i for i, (a, b) in pairs if a != b), min(len(earlier), len(later)))
    near = slice(max(0, place - 20), place + 40)
    return f"from character {place} one reads {earlier[near]!r} and the other {later[near]!r}"


def check_messages(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """The messages in one known form; raises TokenizerError naming the message that is wrong.

    `developer` becomes `system`, a list of text parts becomes their text, and `reasoning` (as some
    servers call it) becomes `reasoning_content`. Roles and call types are from fixed lists, so they
    cannot smuggle text into a template.
    """
    if not messages:
        raise TokenizerError("the conversation is empty; it needs at least one message")
    return [_check_message(message, f"message {number}") for number, message in enumerate(messages)]


def _check_message(message: Message, name: str) -> dict[str, Any]:
    if not isinstance(message, Mapping):
        raise TokenizerError(f"{name} is a {type(message).__name__}, not an object with role and content")
    checked = {key: value for key, value in message.items() if key != "reasoning"}
    role = "system" if message.get("role") == "developer" else message.get("role")
    if role not in ROLES:
        raise TokenizerError(f"{name} has the role {role!r}; the roles are {', '.join(ROLES)}")
    checked["role"] = role
    checked["content"] = _check_content(message.get("content"), name)
    reasoning = message.get("reasoning_content") or message.get("reasoning")
    if reasoning is not None:
        checked["reasoning_content"] = _check_content(reasoning, f"the reasoning of {name}")
    if calls := message.get("tool_calls"):
        if role != "assistant" or not isinstance(calls, Sequence):
            raise TokenizerError(f"{name} has tool_calls; only an assistant message has a list of them")
        checked["tool_calls"] = [
            _check_call(call, f"tool call {i} of {name}") for i, call in enumerate(calls)
        ]
    elif checked["content"] is None:
        raise TokenizerError(f"{name} ({role}) has no content")
    return {key: value for key, value in checked.items() if key != "tool_calls" or value}


def _check_content(content: Any, name: str) -> str | None:
    if content is None or isinstance(content, str):
        return content
    parts = content if isinstance(content, Sequence) else [content]
    if not all(
        isinstance(p, Mapping) and p.get("type") == "text" and isinstance(p.get("text"), str) for p in parts
    ):
        raise TokenizerError(f"{name} has content that is not text; give a string or parts of type text")
    return "".join(part["text"] for part in parts)


def _check_call(call: Any, name: str) -> dict[str, Any]:
    function = call.get("function") if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise TokenizerError(f"{name} has no function with a name")
    if call.get("type", "function") != "function":
        raise TokenizerError(f"{name} has the type {call['type']!r}; the only type is function")
    arguments = function.get("arguments", "{}")
    if not isinstance(arguments, str | Mapping):
        raise TokenizerError(f"{name} has arguments that are neither a JSON string nor an object")
    return {**call, "type": "function", "function": {**function, "arguments": arguments}}
