"""Incremental decoding of a reply: whole characters only, split into thinking and answer."""

import codecs
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from shoestring.tokenizer.bpe import Tokenizer
from shoestring.tokenizer.special import THINK, THINK_END
from shoestring.tokenizer.thinking import has_tags

Kind = Literal["thinking", "answer"]


@dataclass(frozen=True, kw_only=True)
class TextPiece:
    """Text that is ready to show, and the part of the reply that it belongs to."""

    text: str
    kind: Kind


class TagSplitter:
    """Thinking and answer of a reply whose thinking tags are plain text, and not part of it.

    They are `<think>` at the beginning of the reply, and the first `</think>` after it. The end of the text
    is held back while it may become a tag.
    """

    def __init__(self, *, thinking: bool) -> None:
        """Start inside the thinking with `thinking=True`, for a prompt that ends in `<think>`."""
        self._kind: Kind = "thinking" if thinking else "answer"
        self._tag = THINK_END if thinking else THINK
        """The tag that may come next; empty after the last one."""
        self._waiting = ""

    def push(self, text: str) -> list[TextPiece]:
        """Add text; returns what is certain to be no tag."""
        pieces: list[TextPiece] = []
        self._waiting += text
        if self._tag == THINK:
            opening = self._waiting.lstrip()
            if THINK.startswith(opening):
                if opening == THINK:
                    self._waiting, self._kind, self._tag = "", "thinking", THINK_END
                return pieces
            is_open = opening.startswith(THINK)
            self._waiting = opening.removeprefix(THINK) if is_open else self._waiting
            self._kind, self._tag = ("thinking", THINK_END) if is_open else ("answer", "")
        if self._tag == THINK_END and THINK_END in self._waiting:
            thinking, _, self._waiting = self._waiting.partition(THINK_END)
            pieces += text_pieces(thinking, self._kind)
            self._kind, self._tag = "answer", ""
        ends = (n for n in range(len(self._tag), 0, -1) if self._waiting.endswith(self._tag[:n]))
        length = len(self._waiting) - next(ends, 0)
        pieces += text_pieces(self._waiting[:length], self._kind)
        self._waiting = self._waiting[length:]
        return pieces

    def finish(self) -> list[TextPiece]:
        """The text that was held back."""
        rest, self._waiting = self._waiting, ""
        return text_pieces(rest, self._kind)


class TextStream:
    """Incremental `decode` of one reply.

    The thinking tags switch between `thinking` and `answer` and are not part of the text. They are tokens;
    only if the tokenizer has none for them, they are text (see TagSplitter). Hidden special tokens are left
    out. The texts of one kind together equal `decode` of its ids.
    """

    def __init__(self, tokenizer: Tokenizer, *, thinking: bool = False, continues: bool = False) -> None:
        """Start inside the thinking with `thinking=True`, for a prompt that ends in `<think>`.

        `continues` is for a text that goes on where the prompt ends: a space at its beginning is kept.
        """
        self._tokenizer = tokenizer
        self._drops_space = tokenizer.drops_space and not continues
        self._kinds: dict[int | None, Kind] = {
            tokenizer.specials.get(THINK_END): "answer",
            tokenizer.specials.get(THINK): "thinking",
        }
        self._kind: Kind = "thinking" if thinking else "answer"
        self._splitter = None if has_tags(tokenizer) else TagSplitter(thinking=thinking)
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, ids: Iterable[int]) -> list[TextPiece]:
        """Decode more ids; bytes of an incomplete character wait for the next call."""
        pieces: list[TextPiece] = []
        text = ""
        for token_id in ids:
            if token_id in self._kinds:
                pieces += text_pieces(text + self._decoder.decode(b"", final=True), self._kind)
                text, self._kind = "", self._kinds[token_id]
                self._drops_space = self._tokenizer.drops_space
            elif token_id not in self._tokenizer.hidden_ids:
                text += self._decoder.decode(self._next_bytes(token_id))
        return pieces + (self._splitter.push(text) if self._splitter else text_pieces(text, self._kind))

    def finish(self) -> list[TextPiece]:
        """Rest of the text at the end of the reply: U+FFFD for an incomplete character."""
        rest = self._decoder.decode(b"", final=True)
        if self._splitter:
            return self._splitter.push(rest) + self._splitter.finish()
        return text_pieces(rest, self._kind)

    def _next_bytes(self, token_id: int) -> bytes:
        data = self._tokenizer.token_bytes(token_id)
        if self._drops_space and data:
            self._drops_space = False
            return data.removeprefix(b" ")
        return data


def text_pieces(text: str, kind: Kind) -> list[TextPiece]:
    """The piece of a text; none of an empty one."""
    return [TextPiece(text=text, kind=kind)] if text else []
