"""Documents of office programs: text of paragraphs out of a zip of XML, and back with its formats."""

import io
import re
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast
from xml.dom import minidom
from xml.dom.minidom import Document, Element, Node
from xml.parsers.expat import ExpatError

from shoestring.serve.backends.errors import RequestError
from shoestring.serve.translate.units import Unit, mark_letter, split

MAX_BYTES = 64 << 20
"""Of all parts together, unpacked."""
MAX_FILES = 5000


@dataclass(frozen=True)
class Names:
    """Names of XML elements in one kind of document."""

    parts: str
    """A pattern of the parts with text."""
    paragraph: str
    run: str
    text: str
    format: str


KINDS = {
    "docx": Names(
        r"word/(document|header\d*|footer\d*|footnotes|endnotes)\.xml", "w:p", "w:r", "w:t", "w:rPr"
    ),
    "pptx": Names(r"ppt/(slides/slide|notesSlides/notesSlide)\d+\.xml", "a:p", "a:r", "a:t", "a:rPr"),
    "xlsx": Names(r"xl/sharedStrings\.xml", "si", "r", "t", "rPr"),
}


@dataclass
class Paragraph:
    """Runs of text with their formats; the format with the most text is the plain one."""

    runs: list[list[Element]]
    """Runs that follow each other with the same format, together."""
    names: Names
    unit: Unit = field(init=False)

    def __post_init__(self) -> None:
        texts = [self._text(group) for group in self.runs]
        letter = mark_letter("".join(texts))
        self.plain = max(range(len(texts)), key=lambda number: len(texts[number]))
        """The number of the group that gets the text outside all marks."""
        marks: list[str] = []
        parts = []
        for number, text in enumerate(texts):
            if self._is_plain(number):
                parts.append(text)
                continue
            pair = [f"<{letter}{number + 1}>", f"</{letter}{number + 1}>"]
            marks += pair
            parts += [pair[0], text, pair[1]]
        self.unit = Unit("".join(parts), tuple(marks))

    def _is_plain(self, number: int) -> bool:
        return _format(self.runs[number][0], self.names) == _format(self.runs[self.plain][0], self.names)

    def _text(self, group: Sequence[Element]) -> str:
        return "".join(_content(text) for run in group for text in _texts(run, self.names))

    def write(self, text: str) -> None:
        """Put a text with marks in place of the runs' text."""
        first = self.runs[0][0]
        parent = first.parentNode
        assert parent is not None
        own = set(self.unit.marks)
        number = self.plain
        for piece in split(text, self.unit.marks):
            if piece in own:
                number = self.plain if piece.startswith("</") else int(piece.strip("</>")[1:]) - 1
                continue
            parent.insertBefore(self._new_run(number, piece), first)
        for group in self.runs:
            for run in group:
                if run.parentNode is not None:
                    run.parentNode.removeChild(run)

    def _new_run(self, number: int, text: str) -> Element:
        """A run with the format of a group."""
        run = cast(Element, self.runs[number][0].cloneNode(True))
        first, *others = _texts(run, self.names)
        for other in others:
            run.removeChild(other)
        for child in list(first.childNodes):
            first.removeChild(child)
        assert run.ownerDocument is not None
        first.appendChild(run.ownerDocument.createTextNode(text))
        if self.names.text != "a:t":  # which keeps its spaces anyway
            first.setAttribute("xml:space", "preserve")
        return run


class OfficeLayout:
    """A document of an office program: its units, and the file with other texts in their place."""

    def __init__(self, data: bytes, kind: str) -> None:
        """Raises RequestError for a file that is none of this kind."""
        self._names = KINDS[kind]
        self._files = _unpack(data)
        self._documents = {
            name: _parse(content) for name, content in self._files.items() if self._has_text(name)
        }
        self._paragraphs = [p for document in self._documents.values() for p in self._read(document)]
        if not self._documents:
            raise RequestError("invalid", f"Invalid file: this is no {kind} document", field="file")

    @property
    def units(self) -> list[Unit]:
        """The paragraphs' texts, in order."""
        return [paragraph.unit for paragraph in self._paragraphs]

    def render(self, texts: Sequence[str]) -> bytes:
        """The file with these texts. The layout is used up."""
        for paragraph, text in zip(self._paragraphs, texts, strict=True):
            paragraph.write(text)
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in self._files.items():
                document = self._documents.get(name)
                archive.writestr(name, content if document is None else document.toxml("utf-8"))
        return file.getvalue()

    def _has_text(self, name: str) -> bool:
        return re.fullmatch(self._names.parts, name) is not None

    def _read(self, document: Document) -> list[Paragraph]:
        """The paragraphs with words."""
        result = []
        for element in document.getElementsByTagName(self._names.paragraph):
            for runs in self._groups(element):
                paragraph = Paragraph(runs, self._names)
                if paragraph.unit.has_words:
                    result.append(paragraph)
        return result

    def _groups(self, paragraph: Element) -> list[list[list[Element]]]:
        """Lines of a paragraph: runs with text, those of one format together; anything else ends a line."""
        lines: list[list[list[Element]]] = [[]]
        for child in self._children(paragraph):
            if child is None:
                lines.append([])
            elif lines[-1] and _format(lines[-1][-1][0], self._names) == _format(child, self._names):
                lines[-1][-1].append(child)
            else:
                lines[-1].append([child])
        return [line for line in lines if line]

    def _children(self, paragraph: Element) -> list[Element | None]:
        """The runs with text of a paragraph; None for what stands between them and must stay there."""
        children: list[Element | None] = []
        for child in paragraph.childNodes:
            if not isinstance(child, Element) or child.tagName in SILENT:
                continue
            if child.tagName == self._names.text or _is_text(child, self._names):
                children.append(child)
            elif child.tagName in ("w:hyperlink", "w:ins", "w:smartTag"):
                children += [None, *self._children(child), None]
            else:
                children.append(None)
        return children


SILENT = frozenset(("w:proofErr", "w:bookmarkStart", "w:bookmarkEnd", "w:pPr", "a:pPr", "a:endParaRPr"))
"""Elements between runs that may stand anywhere."""


def _texts(run: Element, names: Names) -> list[Element]:
    """The elements with a run's text; a cell of a table may have text without a run."""
    children = [child for child in run.childNodes if isinstance(child, Element)]
    return (
        [run] if run.tagName == names.text else [child for child in children if child.tagName == names.text]
    )


def _is_text(run: Element, names: Names) -> bool:
    """Return whether an element is a run of text and nothing else but its format."""
    if run.tagName != names.run:
        return False
    tags = [child.tagName for child in run.childNodes if isinstance(child, Element)]
    return names.text in tags and set(tags) <= {names.text, names.format, "w:lastRenderedPageBreak"}


def _format(run: Element, names: Names) -> str:
    """The format of a run, for comparison; a language or a mark of the spelling is none."""
    formats = [
        child for child in run.childNodes if isinstance(child, Element) and child.tagName == names.format
    ]
    text = "".join(each.toxml() for each in formats)
    text = re.sub(r'<w:lang [^>]*/>|<w:noProof/>| (?:lang|dirty|err|smtClean)="[^"]*"', "", text)
    return text.replace("<w:rPr/>", "").replace("<w:rPr></w:rPr>", "")


def _content(element: Element) -> str:
    return "".join(child.data for child in element.childNodes if child.nodeType == Node.TEXT_NODE)


def _unpack(data: bytes) -> dict[str, bytes]:
    """The files of a zip. Raises RequestError for one that is broken, or too large when unpacked."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            infos = archive.infolist()
            if len(infos) > MAX_FILES or sum(info.file_size for info in infos) > MAX_BYTES:
                sentence = f"the file has more than {MAX_BYTES >> 20} MiB when it is unpacked"
                raise RequestError("too_large", sentence, field="file")
            return {info.filename: archive.read(info) for info in infos}
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, ValueError, OSError, zlib.error):
        raise RequestError("invalid", "Invalid file: it is damaged or encrypted", field="file") from None


def _parse(content: bytes) -> Document:
    try:
        document = minidom.parseString(content)
    except (ExpatError, ValueError):
        raise RequestError("invalid", "Invalid file: its XML is damaged", field="file") from None
    if document.doctype is not None:  # office programs write none
        raise RequestError("invalid", "Invalid file: its XML has a document type", field="file")
    return document
