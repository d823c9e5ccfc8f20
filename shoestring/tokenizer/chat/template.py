"""Chat template interface: messages to pieces of text, and pieces to token ids with a loss mask."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from shoestring.tokenizer.bpe import Tokenizer
from shoestring.tokenizer.chat.messages import Message


@dataclass(frozen=True, kw_only=True)
class Piece:
    """Part of a rendered conversation: one special token, or text that never becomes one."""

    text: str
    special: bool = False
    in_loss: bool = False
    part: int = 0
    """Neighboring texts of different parts are not joined, so that no token crosses their border."""


@dataclass(frozen=True, kw_only=True)
class ChatIds:
    """Conversation as token ids; `loss_mask[i]` is True if the model learns to produce `ids[i]`."""

    ids: list[int] = field(default_factory=list)
    loss_mask: list[bool] = field(default_factory=list)


class Template(Protocol):
    """Chat template that renders messages into pieces: DeepSeekTemplate or JinjaTemplate."""

    @property
    def name(self) -> str: ...

    def render(
        self,
        messages: Sequence[Message],
        *,
        add_generation_prompt: bool = False,
        tools: Sequence[Message] | None = None,
        thinking: bool | None = None,
        variables: Mapping[str, Any] | None = None,
        with_loss: bool = True,
    ) -> list[Piece]:
        """Render a conversation.

        `add_generation_prompt` ends it where the assistant's next turn begins. `thinking` asks for thinking
        before the answer, or for none (None: the default of the template). `variables` are further ones of
        the template, which ignores those that it does not know. `with_loss=False` may save work when only the
        text is needed. Raises TokenizerError for a wrong message or template.
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
    """Encode a conversation for training: the mask is True for each assistant turn and its end token."""
    return encode_pieces(template.render(messages, tools=tools, thinking=thinking), tokenizer)


def encode_prompt(
    messages: Sequence[Message],
    tokenizer: Tokenizer,
    template: Template,
    *,
    tools: Sequence[Message] | None = None,
    thinking: bool | None = None,
) -> list[int]:
    """Encode a conversation as the prompt for the assistant's next turn."""
    pieces = template.render(
        messages, add_generation_prompt=True, tools=tools, thinking=thinking, with_loss=False
    )
    return encode_pieces(pieces, tokenizer).ids


def encode_pieces(pieces: Iterable[Piece], tokenizer: Tokenizer) -> ChatIds:
    """Encode pieces.

    Neighboring texts are encoded as one, except where the loss begins or ends: the prompt ends there when
    the model is served, so no token may cross this border in training either.
    """
    return encode_many([pieces], tokenizer)[0]


def encode_many(conversations: Iterable[Iterable[Piece]], tokenizer: Tokenizer) -> list[ChatIds]:
    """Encode several lists of pieces at once; three times as fast for many short ones."""
    piece_lists = [merge_pieces(pieces) for pieces in conversations]
    texts: dict[bool, list[str]] = {True: [], False: []}
    for pieces in piece_lists:
        for place, piece in enumerate(pieces):
            if not piece.special:
                texts[_continues(pieces, place, tokenizer)].append(piece.text)
    text_ids = {key: iter(tokenizer.encode_batch(texts[key], continues=key)) for key in texts}
    results = []
    for pieces in piece_lists:
        result = ChatIds()
        for place, piece in enumerate(pieces):
            if piece.special:
                ids = [tokenizer.special_id(piece.text)]
            else:
                ids = next(text_ids[_continues(pieces, place, tokenizer)])
            result.ids.extend(ids)
            result.loss_mask.extend([piece.in_loss] * len(ids))
        results.append(result)
    return results


def _continues(pieces: Sequence[Piece], place: int, tokenizer: Tokenizer) -> bool:
    """Return whether the text of a piece goes on, so that no space is put before it."""
    if tokenizer.prefix == "never" or place == 0:
        return False
    return tokenizer.prefix == "first" or not pieces[place - 1].special


def merge_pieces(pieces: Iterable[Piece]) -> list[Piece]:
    """Join neighboring texts of one part that are both in the loss or both not; drop empty ones."""
    result: list[Piece] = []
    for piece in pieces:
        last = result[-1] if result else None
        is_same = last is not None and (last.in_loss, last.part) == (piece.in_loss, piece.part)
        if last and is_same and not last.special and not piece.special:
            result[-1] = Piece(text=last.text + piece.text, in_loss=piece.in_loss, part=piece.part)
        elif piece.text:
            result.append(piece)
    return result


def pieces_text(pieces: Iterable[Piece]) -> str:
    """Text of a rendered conversation, for people to read."""
    return "".join(piece.text for piece in pieces)


def prefix_break(earlier: str, later: str) -> str | None:
    """Description of the first difference when `later` does not begin with `earlier`; else None."""
    if later.startswith(earlier):
        return None
    pairs = enumerate(zip(earlier, later, strict=False))
    place = next((i for i, (a, b) in pairs if a != b), min(len(earlier), len(later)))
    near = slice(max(0, place - 20), place + 40)
    return f"from character {place} one reads {earlier[near]!r} and the other {later[near]!r}"
