"""Formats of documents that can be translated: text, HTML, and those of office programs."""

import codecs
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from shoestring.serve.backends.errors import RequestError
from shoestring.serve.translate.markup import TagRules, read_markup
from shoestring.serve.translate.office import KINDS, OfficeLayout
from shoestring.serve.translate.plain import read_plain
from shoestring.serve.translate.units import Unit

PLAIN = ("txt", "md", "srt")
HTML = ("html", "htm")
FORMATS = (*PLAIN, *HTML, *KINDS)
"""Endings of names of files that can be translated."""
MEDIA_TYPES = {
    **dict.fromkeys(PLAIN, "text/plain; charset=utf-8"),
    **dict.fromkeys(HTML, "text/html; charset=utf-8"),
    "docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    "pptx": "application/vnd.openxmlformats-officedocument.presentationml.presentation",
    "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
}
MARKS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))


class Layout(Protocol):
    """A document: what stays as it is, and units."""

    @property
    def units(self) -> Sequence[Unit]: ...

    def render(self, texts: list[str]) -> str | bytes:
        """The document with these texts in place of the units."""
        ...


@dataclass(frozen=True)
class DocumentText:
    """A document as it was read."""

    layout: Layout
    num_characters: int
    """Characters that are counted."""


def format_of(name: str) -> str:
    """The format of a file, by its name's ending. Raises RequestError for one that cannot be translated."""
    ending = name.rpartition(".")[2].lower() if "." in name else ""
    if ending not in FORMATS:
        endings = ", ".join(FORMATS)
        sentence = f"Invalid file extension {ending[:10]!r}: documents are {endings}; send others as text"
        raise RequestError("invalid", sentence, field="file")
    return ending


def read_document(data: bytes, form: str) -> DocumentText:
    """Read a document. Raises RequestError for one that is damaged or empty."""
    layout: Layout
    if form in KINDS:
        layout = OfficeLayout(data, form)
        size = sum(len(unit.text) for unit in layout.units)
    else:
        text = _decoded(data)
        layout = read_plain(text) if form in PLAIN else read_markup(text, TagRules("html"))
        size = len(text)
    if not layout.units:
        raise RequestError("invalid", "Invalid file: there is no text in it", field="file")
    return DocumentText(layout, size)


def write_document(document: DocumentText, texts: list[str]) -> bytes:
    """The document with these texts, as a file."""
    content = document.layout.render(texts)
    return content.encode() if isinstance(content, str) else content


def _decoded(data: bytes) -> str:
    """Text in UTF-8 or UTF-16, else in the encoding of old Windows programs."""
    encoding = next((name for mark, name in MARKS if data.startswith(mark)), "utf-8")
    try:
        return data.decode(encoding)
    except UnicodeDecodeError:
        return data.decode("cp1252", errors="replace")
