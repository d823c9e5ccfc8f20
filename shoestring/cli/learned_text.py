"""Tokens of a conversation on a terminal: learned, context and special ones in colors, or in plain marks."""

import os
import sys
from codecs import getincrementaldecoder
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from shoestring.cli.terminal import DIM, PLAIN, printable

if TYPE_CHECKING:
    from shoestring.data.chat.encoding import EncodedRow
    from shoestring.tokenizer.bpe import Tokenizer

LEARNED_COLORS = ("\x1b[30;42m", "\x1b[30;102m")
"""Colors of learned tokens, one after the other, so that each can be told from the next."""
CONTEXT_COLORS = ("\x1b[37m", "\x1b[90m")
SPECIAL_COLORS = {True: "\x1b[30;43m", False: "\x1b[33m"}
"""Colors of special tokens: learned, and not."""
OPEN, CLOSE = "\u00ab", "\u00bb"
"""Marks around what is learned where there are no colors."""


def has_colors() -> bool:
    """Return whether stdout shows colors: a terminal, and NO_COLOR is not set (no-color.org)."""
    dumb = os.environ.get("TERM", "dumb") == "dumb"
    return sys.stdout.isatty() and not dumb and not os.environ.get("NO_COLOR")


def legend(colors: bool) -> str:
    """A line that says what the colors or marks mean."""
    if not colors:
        return f"learned tokens stand between {OPEN} and {CLOSE}"
    sample = f"{LEARNED_COLORS[0]}learned{PLAIN} {SPECIAL_COLORS[True]}learned, special{PLAIN}"
    return f"{sample} {CONTEXT_COLORS[0]}context{PLAIN} {SPECIAL_COLORS[False]}special{PLAIN}"


def tokens(item: "EncodedRow", tokenizer: "Tokenizer") -> list[dict[str, Any]]:
    """Each token of a row: id, text, and whether it is learned and special.

    A character that several tokens share is the text of the last of them: together they are the row's text.
    """
    specials = frozenset(tokenizer.specials.values())
    decoder = getincrementaldecoder("utf-8")("replace")
    return [
        {
            "id": token,
            "text": decoder.decode(tokenizer.token_bytes(token)),
            "learned": bool(in_loss),
            "special": token in specials,
        }
        for token, in_loss in zip(item.ids, item.loss_mask, strict=True)
    ]


def text_of(row: Sequence[dict[str, Any]], colors: bool) -> str:
    """The tokens as one text, without control characters of their own."""
    return _colored(row) if colors else _marked(row)


def table_of(row: Sequence[dict[str, Any]], tokenizer: "Tokenizer") -> str:
    """A line for each token: id, `+` where it is learned, and text; parts of characters as `\\xe2`."""
    lines = []
    for token in row:
        text = tokenizer.token_bytes(token["id"]).decode("utf-8", "backslashreplace")
        lines.append(f"{token['id']:>8} {'+' if token['learned'] else ' '} {printable(repr(text))}")
    return "\n".join(lines)


def _colored(row: Sequence[dict[str, Any]]) -> str:
    parts = []
    for number, token in enumerate(row):
        shade = (LEARNED_COLORS if token["learned"] else CONTEXT_COLORS)[number % 2]
        color = SPECIAL_COLORS[token["learned"]] if token["special"] else shade
        lines = _visible(token["text"]).split("\n")
        parts.append("\n".join(f"{color}{line}{PLAIN}" if line else "" for line in lines))
    return "".join(parts)


def _marked(row: Sequence[dict[str, Any]]) -> str:
    text, inside = "", False
    for token in row:
        if token["learned"] != inside:
            text, inside = text + (CLOSE if inside else OPEN), not inside
        text += _visible(token["text"])
    return text + (CLOSE if inside else "")


def _visible(text: str) -> str:
    """A token's text with line ends shown, and without characters that could rewrite the terminal."""
    return printable(text).replace("\n", "\u23ce\n")


def dim(text: str, colors: bool) -> str:
    """A line about a row."""
    return f"{DIM}{printable(text)}{PLAIN}" if colors else printable(text)
