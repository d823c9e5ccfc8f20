"""Plain text and Markdown as units: each line is one; code, indents and marks of lists stay as they are."""

import re
from dataclasses import dataclass

from shoestring.serve.translate.units import Unit

FENCE = re.compile(r"\s*(```|~~~)")
LINE_BEGIN = re.compile(r"\s*(?:(?:[>*+-]|#{1,6}|\d{1,3}[.)])\s+)*")
"""Indent, quotation, heading and list marks before the text of a line."""


@dataclass(frozen=True)
class PlainLayout:
    """A text: what stays as it is, and units."""

    items: list[str | Unit]

    @property
    def units(self) -> list[Unit]:
        """The units, in order."""
        return [item for item in self.items if isinstance(item, Unit)]

    def render(self, texts: list[str]) -> str:
        """The whole text, with these in place of the units."""
        waiting = iter(texts)
        return "".join(item if isinstance(item, str) else next(waiting) for item in self.items)


def read_plain(text: str, *, joins_lines: bool = False) -> PlainLayout:
    """The layout of a text; with `joins_lines` a line break inside a paragraph is a space."""
    if joins_lines:
        text = re.sub(r"(?<=\S)[ \t]*\n[ \t]*(?=\S)", " ", text)
    items: list[str | Unit] = []
    is_code = False
    for line in text.splitlines(keepends=True):
        is_fence = FENCE.match(line) is not None
        if is_code or is_fence:
            items.append(line)
        else:
            items += _line(line)
        is_code ^= is_fence
    return PlainLayout(items)


def _line(line: str) -> list[str | Unit]:
    begin = LINE_BEGIN.match(line)
    assert begin is not None
    body = line[begin.end() :]
    unit = Unit(body.rstrip())
    if not unit.has_words:
        return [line]
    return [begin[0], unit, body[len(unit.text) :]]
