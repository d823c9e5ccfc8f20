"""A reply as it comes, by its tokens: thinking, answer and tool calls, within the text that may be shown."""

import codecs
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from shoestring.tokenizer.bpe import Tokenizer
from shoestring.tokenizer.chat.tool_format import ToolFormat
from shoestring.tokenizer.special import THINK, THINK_END
from shoestring.tokenizer.stream import Kind, TagSplitter, TextPiece, text_pieces
from shoestring.tokenizer.thinking import has_tags

Mark = Literal["text", "thinking", "answer", "hidden", "call", "call_end", "calls", "calls_end"]


@dataclass(frozen=True, kw_only=True)
class ToolPiece:
    """A part of a tool call: first its name, then text of its arguments."""

    index: int
    name: str = ""
    arguments: str = ""


ReplyPiece = TextPiece | ToolPiece


class ReplyReader:
    """Reads one completion of the engine as thinking, answer and tool calls.

    Tokens decide what is what, so no text that a model spells can become a tag or a tool call. The engine's
    text decides how much of it counts: it ends before a stop string, and while it may still become one, its
    end is held back. The engine must be asked for the text of all tokens (skip_special_tokens=False). The
    result does not depend on how the reply is split.
    """

    def __init__(
        self, tokenizer: Tokenizer, *, thinking: bool = False, tool_format: ToolFormat | None = None
    ) -> None:
        """`thinking`: the prompt ends in the thinking; `tool_format`: None for a request without tools."""
        self._tokenizer = tokenizer
        self._marks = _marks(tokenizer, tool_format)
        self._kind: Kind = "thinking" if thinking else "answer"
        self._splitter = None if has_tags(tokenizer) else TagSplitter(thinking=thinking)
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._waiting: deque[tuple[Mark, str]] = deque()
        self._num_final = 0  # characters that may be shown, of those waiting
        self._call = None if tool_format is None else CallReader(tool_format)
        self._is_between_calls = False

    def push(self, token_ids: Iterable[int], text: str) -> list[ReplyPiece]:
        """Add new tokens and the engine's new text, as in one delta of CompletionOutput."""
        for token_id in token_ids:
            new_text = self._decoder.decode(self._tokenizer.token_bytes(token_id))
            mark = self._marks.get(token_id, "text")
            if mark != "text":
                spelling = self._tokenizer.token_bytes(token_id).decode()
                self._waiting.append(("text", new_text.removesuffix(spelling)))
                new_text = spelling
            self._waiting.append((mark, new_text))
        self._num_final += len(text)
        return self._release()

    def finish(self) -> list[ReplyPiece]:
        """The rest, after the last token: text that was held back, a tool call that was cut off."""
        self._waiting.append(("text", self._decoder.decode(b"", final=True)))
        pieces = self._release()
        if self._call is not None:
            pieces += self._call.cut()
        if self._splitter is not None:
            pieces += self._splitter.finish()
        return pieces

    def _release(self) -> list[ReplyPiece]:
        """Pieces of the waiting text as far as it is final."""
        pieces: list[ReplyPiece] = []
        while self._waiting and len(self._waiting[0][1]) <= self._num_final:
            mark, text = self._waiting.popleft()
            self._num_final -= len(text)
            pieces += self._text(text) if mark == "text" else self._mark(mark, text)
        if self._waiting and self._waiting[0][0] == "text":
            text = self._waiting[0][1]
            pieces += self._text(text[: self._num_final])
            self._waiting[0] = ("text", text[self._num_final :])
            self._num_final = 0
        return pieces

    def _mark(self, mark: Mark, text: str) -> list[ReplyPiece]:
        """Pieces that a mark ends, and the state after it."""
        if self._call is not None and self._call.is_open and mark not in ("call_end", "call"):
            return self._call.push(text)
        if mark in ("thinking", "answer"):
            self._kind = "thinking" if mark == "thinking" else "answer"
        elif self._call is not None and mark == "call":
            pieces = self._call.cut()
            self._call.open()
            return pieces
        elif self._call is not None and mark == "call_end":
            self._is_between_calls = True
            return self._call.close()
        elif mark in ("calls", "calls_end"):
            self._is_between_calls = mark == "calls"
        return []

    def _text(self, text: str) -> list[ReplyPiece]:
        if self._call is not None and self._call.is_open:
            return self._call.push(text)
        if self._is_between_calls and not text.strip():
            return []
        self._is_between_calls = False
        return [*(self._splitter.push(text) if self._splitter else text_pieces(text, self._kind))]


class CallReader:
    """Reads tool calls of one format: the name when it is complete, then arguments as they come."""

    def __init__(self, tool_format: ToolFormat) -> None:
        self.is_open = False
        self._format, self._index, self._text, self._has_name = tool_format, -1, "", False

    def open(self) -> None:
        """Begin the next call."""
        self.is_open, self._text, self._has_name = True, "", False

    def push(self, text: str) -> list[ReplyPiece]:
        """Add text of the open call; the end that may be its last mark is held back."""
        self._text += text
        pieces: list[ReplyPiece] = []
        if not self._has_name:
            name, separator, rest = self._text.partition(self._format.before_arguments)
            if not separator:
                return []
            self._has_name, self._text = True, rest
            self._index += 1
            pieces.append(ToolPiece(index=self._index, name=name.removeprefix(self._format.before_name)))
        length = max(len(self._text) - len(self._format.after_arguments), 0)
        arguments, self._text = self._text[:length], self._text[length:]
        return pieces + self._arguments(arguments)

    def close(self) -> list[ReplyPiece]:
        """End the open call; one without a name is text."""
        if not self.is_open:
            return []
        self.is_open = False
        if not self._has_name:
            return [*text_pieces(self._format.call_begin + self._text + self._format.call_end, "answer")]
        return self._arguments(self._text.removesuffix(self._format.after_arguments))

    def cut(self) -> list[ReplyPiece]:
        """End a call that the reply broke off, if one is open."""
        if not self.is_open:
            return []
        self.is_open = False
        return self._arguments(self._text) if self._has_name else []

    def _arguments(self, text: str) -> list[ReplyPiece]:
        return [ToolPiece(index=self._index, arguments=text)] if text else []


def _marks(tokenizer: Tokenizer, tool_format: ToolFormat | None) -> dict[int, Mark]:
    """The meaning of each token that has one of its own."""
    marks: dict[int, Mark] = dict.fromkeys(tokenizer.hidden_ids, "hidden")
    names: list[tuple[str, Mark]] = (
        [(THINK, "thinking"), (THINK_END, "answer")] if has_tags(tokenizer) else []
    )
    if tool_format is not None:
        names += [(tool_format.begin, "calls"), (tool_format.call_begin, "call")]
        names += [(tool_format.call_end, "call_end"), (tool_format.end, "calls_end")]
    return marks | {tokenizer.added_tokens[spelling]: mark for spelling, mark in names if spelling}
