"""Incremental decoding of a reply: whole characters only, split into thinking and answer."""

import codecs
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from shoestring.tokenizer.bpe import Tokenizer
from shoestring.tokenizer.special import THINK, THINK_END

Kind = Literal["thinking", "answer"]


@dataclass(frozen=True, kw_only=True)
class TextPiece:
    """Text that is ready to show, and the part of the reply that it belongs to."""

    text: str
    kind: Kind


class TextStream:
    """Incremental `decode` of one reply.

    The thinking tags, by their ids, switch between `thinking` and `answer` and are not part of the text;
    other special tokens are left out. The texts of one kind together equal `decode` of its ids.
    """

    def __init__(self, tokenizer: Tokenizer, *, thinking: bool = False) -> None:
        """Start inside the thinking with `thinking=True`, for a prompt that ends in `<think>`."""
        self._tokenizer = tokenizer
        self._specials = frozenset(tokenizer.specials.values())
        self._kinds: dict[int | None, Kind] = {
            tokenizer.specials.get(THINK_END): "answer",
            tokenizer.specials.get(THINK): "thinking",
        }
        self._kind: Kind = "thinking" if thinking else "answer"
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, ids: Iterable[int]) -> list[TextPiece]:
        """Decode more ids; bytes of an incomplete character wait for the next call."""
        pieces: list[TextPiece] = []
        text = ""
        for token_id in ids:
            if token_id in self._kinds:
                pieces += self._piece(text + self._decoder.decode(b"", final=True))
                text, self._kind = "", self._kinds[token_id]
            elif token_id not in self._specials:
                text += self._decoder.decode(self._tokenizer.token_bytes(token_id))
        pieces += self._piece(text)
        return pieces

    def finish(self) -> list[TextPiece]:
        """Rest of the text at the end of the reply: U+FFFD for an incomplete character."""
        return list(self._piece(self._decoder.decode(b"", final=True)))

    def _piece(self, text: str) -> Iterator[TextPiece]:
        if text:
            yield TextPiece(text=text, kind=self._kind)
