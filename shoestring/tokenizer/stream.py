"""Incremental decoding of a reply: whole characters only, split into thinking and answer."""

import codecs
from collections.abc import Iterable, Iterator
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


class TextStream:
    """Incremental `decode` of one reply.

    The thinking tags switch between `thinking` and `answer` and are not part of the text. They are tokens;
    only if the tokenizer has none for them, they are text: `<think>` at the beginning of the reply, and the
    first `</think>` after it. Hidden special tokens are left out. The texts of one kind together equal
    `decode` of its ids.
    """

    def __init__(self, tokenizer: Tokenizer, *, thinking: bool = False) -> None:
        """Start inside the thinking with `thinking=True`, for a prompt that ends in `<think>`."""
        self._tokenizer = tokenizer
        self._kinds: dict[int | None, Kind] = {
            tokenizer.specials.get(THINK_END): "answer",
            tokenizer.specials.get(THINK): "thinking",
        }
        self._kind: Kind = "thinking" if thinking else "answer"
        self._tag = None if has_tags(tokenizer) else THINK_END if thinking else THINK
        """Tag in the text that is looked for; empty after the last one, None if tags are tokens."""
        self._held = ""
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, ids: Iterable[int]) -> list[TextPiece]:
        """Decode more ids; bytes of an incomplete character wait for the next call."""
        pieces: list[TextPiece] = []
        text = ""
        for token_id in ids:
            if token_id in self._kinds:
                pieces += self._piece(text + self._decoder.decode(b"", final=True))
                text, self._kind = "", self._kinds[token_id]
            elif token_id not in self._tokenizer.hidden_ids:
                text += self._decoder.decode(self._tokenizer.token_bytes(token_id))
        pieces += self._piece(text) if self._tag is None else self._split(text)
        return pieces

    def finish(self) -> list[TextPiece]:
        """Rest of the text at the end of the reply: U+FFFD for an incomplete character."""
        rest = self._decoder.decode(b"", final=True)
        if self._tag is not None:
            pieces = self._split(rest)
            rest, self._held = self._held, ""
            return [*pieces, *self._piece(rest)]
        return list(self._piece(rest))

    def _split(self, text: str) -> list[TextPiece]:
        """Pieces of text that may contain tags as text; an end that may become the next tag is held back."""
        pieces: list[TextPiece] = []
        self._held += text
        if self._tag == THINK:
            opening = self._held.lstrip()
            if THINK.startswith(opening):
                if opening == THINK:
                    self._held, self._kind, self._tag = "", "thinking", THINK_END
                return pieces
            is_open = opening.startswith(THINK)
            self._held = opening.removeprefix(THINK) if is_open else self._held
            self._kind, self._tag = ("thinking", THINK_END) if is_open else ("answer", "")
        if self._tag == THINK_END and THINK_END in self._held:
            thinking, _, self._held = self._held.partition(THINK_END)
            pieces += self._piece(thinking)
            self._kind, self._tag = "answer", ""
        ends = (n for n in range(len(self._tag or ""), 0, -1) if self._held.endswith((self._tag or "")[:n]))
        length = len(self._held) - next(ends, 0)
        pieces += self._piece(self._held[:length])
        self._held = self._held[length:]
        return pieces

    def _piece(self, text: str) -> Iterator[TextPiece]:
        if text:
            yield TextPiece(text=text, kind=self._kind)
