"""Units of translation: lines of text in which marks stand for tags, and their cut at ends of sentences."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

MARK = re.compile(r"<(/?)([a-z]\d+)(/?)>")
SENTENCE_ENDS = frozenset(".!?…。！？")
PLACE = re.compile(r"(?P<mark></?[a-z]\d+/?>)|\s+|(?<=[。！？])")
LETTERS = "tmxzqkw"
"""First letters of marks: the first one that no text of the unit looks like."""


@dataclass(frozen=True)
class Unit:
    """A line of text; its marks <t1>, </t1> and <t2/> stand for what must come out as it is."""

    text: str
    marks: tuple[str, ...] = ()

    @property
    def has_words(self) -> bool:
        """Return whether there is anything to translate: a letter outside the marks."""
        return any(piece.isalpha() for piece in "".join(self.runs()))

    def runs(self) -> list[str]:
        """The text between the marks."""
        own = set(self.marks)
        return [piece for piece in split(self.text, self.marks) if piece not in own]


def split(text: str, marks: Sequence[str]) -> list[str]:
    """A text at its marks: text and marks in turn, without empty pieces."""
    own, pieces, begin = set(marks), [], 0
    for match in MARK.finditer(text) if own else ():
        if match[0] in own:
            pieces += [text[begin : match.start()], match[0]]
            begin = match.end()
    return [piece for piece in (*pieces, text[begin:]) if piece]


def is_whole(text: str, marks: Sequence[str]) -> bool:
    """Return whether a text has all the marks, each once, and every pair opens and closes in order."""
    own = set(marks)
    present = [piece for piece in split(text, marks) if piece in own]
    if sorted(present) != sorted(marks):
        return False
    open_names: list[str] = []
    for mark in present:
        name = mark.strip("</>")
        if mark.startswith("</"):
            if not open_names or open_names.pop() != name:
                return False
        elif not mark.endswith("/>"):
            open_names.append(name)
    return not open_names


def mark_letter(text: str) -> str:
    """A letter for marks that the text itself does not seem to have."""
    return next((letter for letter in LETTERS if not re.search(rf"</?{letter}\d", text)), LETTERS[0])


def cut(unit: Unit, most: int) -> Iterator[tuple[Unit, str]]:
    """Parts of a unit of at most so many characters, each with the space after it.

    A part ends at the end of a sentence, else between two words, and never inside a pair of marks: such a
    part may be longer.
    """
    begin = 0
    sentence: Place | None = None
    word: Place | None = None
    for place in _places(unit) if len(unit.text) > most else ():
        if place.end - begin > most and (best := sentence or word) is not None:
            yield _part(unit, begin, best.end), unit.text[best.end : best.next]
            begin, sentence, word = best.next, None, None
        word = place
        sentence = place if place.is_sentence else sentence
    if len(unit.text) - begin > most and (best := sentence or word) is not None:
        yield _part(unit, begin, best.end), unit.text[best.end : best.next]
        begin = best.next
    if begin < len(unit.text):
        yield _part(unit, begin, len(unit.text)), ""


@dataclass(frozen=True)
class Place:
    """A place between two words at which a unit may be cut."""

    end: int
    next: int
    """The begin of what comes after the space."""
    is_sentence: bool


def _part(unit: Unit, begin: int, end: int) -> Unit:
    text = unit.text[begin:end]
    present = {match[0] for match in MARK.finditer(text)}
    return Unit(text, tuple(mark for mark in unit.marks if mark in present))


def _places(unit: Unit) -> Iterator[Place]:
    """The places outside all pairs of marks."""
    own, depth = set(unit.marks), 0
    for match in PLACE.finditer(unit.text):
        mark = match["mark"]
        if mark is None and not depth:
            before = unit.text[max(match.start() - 4, 0) : match.start()].rstrip("\"'”’»)]")[-1:]
            yield Place(match.start(), match.end(), before in SENTENCE_ENDS)
        elif mark in own and not mark.endswith("/>"):
            depth += -1 if mark.startswith("</") else 1
