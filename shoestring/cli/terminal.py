"""A reply on a terminal: thinking dimmed and then replaced by one line, the answer as it comes."""

import re
import sys
import time
from typing import TYPE_CHECKING, Protocol, TextIO

if TYPE_CHECKING:
    from shoestring.engine.request import RequestOutput
    from shoestring.tokenizer.bpe import Tokenizer
    from shoestring.tokenizer.stream import TextPiece

DIM, PLAIN = "\x1b[2m", "\x1b[0m"
THINKING_ROWS = 6
REDRAW_S = 0.1
# C0 and C1 except tab and line feed, and the characters that change the direction of text.
UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    """Text without control characters, with which a model or a file could rewrite the terminal."""
    return UNPRINTABLE.sub("", text)


class Reply:
    """One reply as its tokens arrive: thinking, answer, counts and times."""

    def __init__(self, tokenizer: "Tokenizer", *, thinking: bool, continues: bool = False) -> None:
        from shoestring.tokenizer.stream import TextStream

        self.texts = {"thinking": "", "answer": ""}
        self.tokens = self.thinking_tokens = self.prompt_tokens = self.cached_tokens = 0
        self.finish_reason: str | None = None
        self.error: str | None = None
        self.seconds, self.first_token_s = 0.0, 0.0
        self._stream = TextStream(tokenizer, thinking=thinking, continues=continues)

    def push(self, output: "RequestOutput") -> "list[TextPiece]":
        """Add an output; returns its new text."""
        new = output.outputs[0]
        self.prompt_tokens, self.cached_tokens = len(output.prompt_token_ids), output.num_cached_tokens
        self.finish_reason = new.finish_reason
        self.error = str(new.stop_reason) if new.finish_reason == "error" else None
        times = output.metrics
        if times is not None and times.first_token_s is not None and times.last_token_s is not None:
            self.first_token_s = times.first_token_s - times.arrival_s
            self.seconds = times.last_token_s - times.arrival_s
        self.tokens += len(new.token_ids)
        return self._take(self._stream.push(new.token_ids), len(new.token_ids))

    def finish(self) -> "list[TextPiece]":
        """End the reply; returns the text that was held back, an incomplete character."""
        return self._take(self._stream.finish(), 0)

    @property
    def tokens_per_s(self) -> float:
        """Tokens per second after the first one; over the whole time if there is only one."""
        decoding = self.seconds - self.first_token_s
        if self.tokens > 1 and decoding > 0:
            return (self.tokens - 1) / decoding
        return self.tokens / self.seconds if self.seconds else 0.0

    @property
    def summary(self) -> str:
        """`42 tokens, 31.0 tokens/s; prompt 18 tokens (12 cached), 0.35 s to the first`."""
        if not self.tokens:
            return "no tokens"
        cache_note = f" ({self.cached_tokens} cached)" if self.cached_tokens else ""
        return (
            f"{self.tokens} tokens, {self.tokens_per_s:.1f} tokens/s; "
            f"prompt {self.prompt_tokens} tokens{cache_note}, {self.first_token_s:.2f} s to the first"
        )

    def _take(self, pieces: "list[TextPiece]", tokens: int) -> "list[TextPiece]":
        for piece in pieces:
            self.texts[piece.kind] += piece.text
        if pieces and pieces[-1].kind == "thinking":
            self.thinking_tokens += tokens
        return pieces


class View(Protocol):
    """A place for replies: Screen, for a conversation; run.Plain, for one answer in a pipe."""

    def show(self, pieces: "list[TextPiece]") -> None:
        """Show new text."""
        ...

    def end(self) -> None:
        """End a reply, complete or not."""
        ...


class Screen:
    """A terminal for replies. It shows the last lines of thinking, dimmed, and one line after its end."""

    def __init__(self, out: TextIO | None = None, *, columns: int | None = None) -> None:
        import os
        import shutil

        self.out = out or sys.stdout
        self.alive = self.out.isatty() and os.environ.get("TERM", "dumb") != "dumb"
        self._columns = columns or shutil.get_terminal_size().columns
        self._rows, self._redraw_s, self._thinking_start_s = 0, 0.0, 0.0
        self._thinking, self._answer = "", ""

    def show(self, pieces: "list[TextPiece]") -> None:
        for piece in pieces:
            text = printable(piece.text)
            if piece.kind == "thinking":
                self._think(text)
            else:
                self._fold()
                text = text if self._answer else text.lstrip("\n")
                self._answer += text
                self.out.write(text)
        self.out.flush()

    def end(self) -> None:
        """End a reply, complete or not."""
        self._fold()
        if self._answer and not self._answer.endswith("\n"):
            self.out.write("\n")
        self._answer = ""
        self.out.flush()

    def note(self, text: str) -> None:
        """Write a line of the program, not of the model."""
        self.out.write(f"{DIM}{printable(text)}{PLAIN}\n" if self.alive else f"{printable(text)}\n")
        self.out.flush()

    def _think(self, text: str) -> None:
        now = time.monotonic()
        self._thinking_start_s = self._thinking_start_s or now
        self._thinking += text
        if self.alive and now - self._redraw_s >= REDRAW_S:
            self._redraw_s = now
            self._erase()
            lines = tail(self._thinking, self._columns - 2)
            self.out.write("".join(f"{DIM}  {line}{PLAIN}\n" for line in lines))
            self._rows = len(lines)

    def _fold(self) -> None:
        """Write one line in place of the thinking."""
        self._erase()
        if not self._thinking.strip():
            self._thinking = ""
            return
        seconds = time.monotonic() - self._thinking_start_s
        self.note(f"thought for {seconds:.1f} s, {len(self._thinking.split())} words (/think shows them)")
        self._thinking, self._thinking_start_s, self._redraw_s = "", 0.0, 0.0

    def _erase(self) -> None:
        if self._rows:
            self.out.write(f"\x1b[{self._rows}A\x1b[J")
        self._rows = 0


def tail(text: str, width: int, rows: int = THINKING_ROWS) -> list[str]:
    """The last rows of `text`, wrapped to `width` cells."""
    from rich.cells import chop_cells

    width = max(width, 2)
    recent = text[-2 * width * rows :].expandtabs(4).rstrip("\n")
    lines = [row for line in recent.split("\n")[-rows:] for row in chop_cells(line, width) or [""]]
    return lines[-rows:]
