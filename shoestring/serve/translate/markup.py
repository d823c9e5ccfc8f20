"""XML and HTML as units: tags that end a line stand between them, others are marks inside."""

import html
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from shoestring.serve.translate.units import Unit, mark_letter, split

TAG = re.compile(r"<(/?)([A-Za-z_][^\s<>/]*)((?:\"[^\"]*\"|'[^']*'|[^'\"<>])*)>")
SPECIAL = (("<!--", "-->"), ("<![CDATA[", "]]>"), ("<?", "?>"), ("<!", ">"))
"""Begins and ends of what is neither text nor a tag."""
INLINE = frozenset((
    "a", "abbr", "acronym", "b", "bdi", "bdo", "big", "br", "cite", "code", "data", "del", "dfn", "em",
    "font", "i", "img", "ins", "kbd", "label", "mark", "q", "rp", "rt", "ruby", "s", "samp", "small",
    "span", "strike", "strong", "sub", "sup", "time", "tt", "u", "var", "wbr",
))  # fmt: skip
CODE = frozenset(("script", "style", "code", "pre", "kbd", "samp", "textarea", "svg", "math"))
"""Elements of HTML whose content is no prose."""
EMPTY = frozenset((
    "area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track",
    "wbr",
))  # fmt: skip
NO_TRANSLATION = re.compile(
    r"translate\s*=\s*[\"']?no\b|class\s*=\s*(?:\"[^\"]*|'[^']*)\bnotranslate\b", re.I
)
XML_ENTITY = re.compile(r"&(?:amp|lt|gt|quot|apos|#\d{1,7}|#[xX][0-9a-fA-F]{1,6});")

Kind = Literal["xml", "html"]


@dataclass(frozen=True)
class TagRules:
    """The ways of a request with tags."""

    kind: Kind = "xml"
    finds_outline: bool = True
    """XML: tags with text beside them are inline, others end a line."""
    splitting: Sequence[str] = ()
    """Tags that end a line in any case."""
    non_splitting: Sequence[str] = ()
    """Tags that never do."""
    verbatim: Sequence[str] = ()
    """Tags whose content stays as it is."""


@dataclass(frozen=True)
class Tag:
    """A tag, or anything that stays as it is."""

    text: str
    name: str = ""
    kind: Literal["open", "close", "empty"] = "empty"


@dataclass(frozen=True)
class Slot:
    """A unit in a document, and what its marks stand for."""

    unit: Unit
    originals: dict[str, str]

    def restore(self, text: str) -> str:
        """The text with its tags."""
        pieces = split(text, self.unit.marks)
        return "".join(self.originals.get(piece) or html.escape(piece, quote=False) for piece in pieces)


@dataclass(frozen=True)
class MarkupLayout:
    """A document: what stays as it is, and units."""

    items: list[str | Slot] = field(default_factory=list)

    @property
    def units(self) -> list[Unit]:
        """The units, in order."""
        return [item.unit for item in self.items if isinstance(item, Slot)]

    def render(self, texts: list[str]) -> str:
        """The whole document, with these in place of the units."""
        waiting = iter(texts)
        return "".join(i if isinstance(i, str) else i.restore(next(waiting)) for i in self.items)


def read_markup(text: str, rules: TagRules) -> MarkupLayout:
    """The layout of a document; whatever is not well formed stays as it is."""
    tokens = _join_verbatim(list(_tokens(text, rules.kind)), rules)
    inline = _inline(tokens, rules)
    layout, segment = MarkupLayout(), list[str | Tag]()
    for token in tokens:
        if isinstance(token, str) or not token.name or token.name in inline:
            segment.append(token)
            continue
        layout.items.extend(_items(segment, rules.kind))
        layout.items.append(token.text)
        segment = []
    layout.items.extend(_items(segment, rules.kind))
    return layout


def _tokens(text: str, kind: Kind) -> Iterator[str | Tag]:
    """Text and tags in turn. A comment without an end is all the rest."""
    begin = place = 0
    while (place := text.find("<", place)) >= 0:
        token, end = _token_at(text, place, kind)
        if token is None:
            place += 1
            continue
        if place > begin:
            yield text[begin:place]
        yield token
        begin = place = end
    if begin < len(text):
        yield text[begin:]


def _token_at(text: str, place: int, kind: Kind) -> tuple[Tag | None, int]:
    """The tag that begins at a place, and its end."""
    for opening, closing in SPECIAL:
        if text.startswith(opening, place):
            end = text.find(closing, place + len(opening))
            end = len(text) if end < 0 else end + len(closing)
            return Tag(text[place:end]), end
    match = TAG.match(text, place)
    if match is None:
        return None, place
    name = match[2].lower() if kind == "html" else match[2]
    is_empty = match[3].endswith("/") or (kind == "html" and name in EMPTY)
    return Tag(match[0], name, "close" if match[1] else "empty" if is_empty else "open"), match.end()


def _join_verbatim(tokens: list[str | Tag], rules: TagRules) -> list[str | Tag]:
    """The tokens, each element that is not translated as one."""
    ends = _pairs(tokens)
    result: list[str | Tag] = []
    number = 0
    while number < len(tokens):
        token = tokens[number]
        end = ends.get(number)
        if isinstance(token, Tag) and end is not None and _is_verbatim(token, rules):
            whole = "".join(each if isinstance(each, str) else each.text for each in tokens[number : end + 1])
            result.append(Tag(whole, token.name))
            number = end
        else:
            result.append(token)
        number += 1
    return result


def _is_verbatim(tag: Tag, rules: TagRules) -> bool:
    if tag.name in rules.verbatim:
        return True
    return rules.kind == "html" and (tag.name in CODE or NO_TRANSLATION.search(tag.text) is not None)


def _pairs(tokens: Sequence[str | Tag]) -> dict[int, int]:
    """The numbers of opening tags, with those of the tags that close them."""
    waiting: defaultdict[str, list[int]] = defaultdict(list)
    pairs = {}
    for number, token in enumerate(tokens):
        if isinstance(token, str):
            continue
        if token.kind == "open":
            waiting[token.name].append(number)
        elif token.kind == "close" and waiting[token.name]:
            pairs[waiting[token.name].pop()] = number
    return pairs


def _inline(tokens: Sequence[str | Tag], rules: TagRules) -> set[str]:
    """The names of tags that stand inside a line."""
    names = {token.name for token in tokens if isinstance(token, Tag)}
    if rules.kind == "html":
        names &= INLINE
    elif rules.finds_outline:
        names = _beside_text(tokens)
    return (names | set(rules.non_splitting)) - set(rules.splitting)


def _beside_text(tokens: Sequence[str | Tag]) -> set[str]:
    """Names of tags that have text directly before or after their element."""
    names = set()
    for number, token in enumerate(tokens):
        if isinstance(token, str):
            continue
        before = tokens[number - 1] if number and token.kind != "close" else ""
        after = tokens[number + 1] if number + 1 < len(tokens) and token.kind != "open" else ""
        if any(isinstance(other, str) and other.strip() for other in (before, after)):
            names.add(token.name)
    return names


def _items(segment: list[str | Tag], kind: Kind) -> list[str | Slot]:
    """A line as the text before it, a unit, and the text after it."""
    begin, end = _bounds(segment)
    pairs = _pairs(segment)
    closers = {close: opener for opener, close in pairs.items()}
    letter = mark_letter("".join(_plain(token, kind) for token in segment if isinstance(token, str)))
    originals: dict[str, str] = {}
    parts = []
    for number in range(begin, end):
        token = segment[number]
        if isinstance(token, str):
            parts.append(re.sub(r"\s+", " ", _plain(token, kind)))
            continue
        pair = closers.get(number, number)
        form = "<{}>" if number in pairs else "</{}>" if number in closers else "<{}/>"
        mark = form.format(f"{letter}{pair + 1}")
        originals[mark] = token.text
        parts.append(mark)
    text = "".join(parts)
    head, tail = text[: len(text) - len(text.lstrip())], text[len(text.rstrip()) :]
    unit = Unit(text.strip(), tuple(originals))
    if not unit.has_words:
        return [_source(segment)]
    return [_source(segment[:begin]) + head, Slot(unit, originals), tail + _source(segment[end:])]


def _bounds(segment: list[str | Tag]) -> tuple[int, int]:
    """The part of a line without the tags and spaces around all its text."""
    pairs = _pairs(segment)
    closers = set(pairs.values())
    begin, end = 0, len(segment)
    is_smaller = True
    while is_smaller and begin < end:
        is_smaller = True
        if _is_outside(segment[begin], begin in pairs):
            begin += 1
        elif _is_outside(segment[end - 1], end - 1 in closers):
            end -= 1
        elif pairs.get(begin) == end - 1:
            begin, end = begin + 1, end - 1
        else:
            is_smaller = False
    return begin, end


def _is_outside(token: str | Tag, is_paired: bool) -> bool:
    """Return whether a token at the edge of a line is no part of its sentence."""
    if isinstance(token, str):
        return not token.strip()
    return not is_paired and not (token.kind == "empty" and "</" in token.text)  # which has content


def _source(tokens: Sequence[str | Tag]) -> str:
    return "".join(token if isinstance(token, str) else token.text for token in tokens)


def _plain(text: str, kind: Kind) -> str:
    """Text without entities."""
    if kind == "html":
        return html.unescape(text)
    return XML_ENTITY.sub(lambda match: html.unescape(match[0]), text)
