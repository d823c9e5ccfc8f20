"""Messages -> ids and loss mask: the door to chat templates, ours and strangers'."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from shoestring.tokenizer.bpe import Tokenizer
from shoestring.tokenizer.chat.messages import Message


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
