"""Message texts as templates see them: stand-ins for their characters, with the methods of the originals.

The child process of `worker.py` uses it; it imports nothing of the package.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, SupportsIndex

CASES = ("capitalize", "casefold", "lower", "swapcase", "title", "upper")
READERS = (
    "count", "endswith", "find", "index", "isalnum", "isalpha", "isascii", "isdecimal", "isdigit",
    "isidentifier", "islower", "isnumeric", "isprintable", "isspace", "istitle", "isupper", "rfind", "rindex",
    "startswith",
)  # fmt: skip
"""Methods of str that say something about a text."""

_originals: dict[int, str] = {}
_stand_ins: dict[int, str] = {}


def use_stand_ins(originals: Mapping[str, str]) -> None:
    """Set what each stand-in replaces; of several for one character, texts made here have the last."""
    _originals.clear()
    _stand_ins.clear()
    _originals.update((ord(stand_in), char) for stand_in, char in originals.items())
    _stand_ins.update((ord(char), stand_in) for stand_in, char in originals.items())


class MessageText(str):
    """Text whose characters from messages are stand-ins, and whose original text is `_text`.

    Comparisons and methods give what they give for the original. Texts made from it keep the stand-ins, so
    that the source of every character is known afterwards; so do operations of str that are not defined here.
    """

    _text: str

    def __new__(cls, characters: str, text: str | None = None) -> MessageText:
        self = super().__new__(cls, characters)
        self._text = original(characters) if text is None else text
        return self

    def __str__(self) -> str:
        return self

    def __hash__(self) -> int:
        return hash(self._text)

    def __repr__(self) -> str:
        return escape_all(repr(self._text))

    def __getitem__(self, place: SupportsIndex | slice) -> MessageText:
        return MessageText(super().__getitem__(place), self._text[place])

    def __iter__(self) -> Iterator[str]:
        return map(MessageText, super().__iter__(), self._text)

    def __contains__(self, part: object) -> bool:
        return original(part) in self._text

    def __add__(self, other: str) -> MessageText:
        return MessageText(super().__add__(other), self._text + original(other))

    def __radd__(self, other: str) -> MessageText:
        return MessageText(str.__add__(other, self), original(other) + self._text)

    def join(self, parts: Any) -> MessageText:
        return MessageText(super().join(parts))

    def strip(self, chars: str | None = None) -> MessageText:
        return self.lstrip(chars).rstrip(chars)

    def lstrip(self, chars: str | None = None) -> MessageText:
        return self[len(self) - len(self._text.lstrip(original(chars))) :]

    def rstrip(self, chars: str | None = None) -> MessageText:
        return self[: len(self._text.rstrip(original(chars)))]

    def removeprefix(self, prefix: str) -> MessageText:
        return self[len(prefix) :] if self._text.startswith(original(prefix)) else self

    def removesuffix(self, suffix: str) -> MessageText:
        return self[: len(self) - len(suffix)] if self._text.endswith(original(suffix)) else self

    def split(self, sep: str | None = None, maxsplit: SupportsIndex = -1) -> list[str]:
        return self._parts(self._text.split(original(sep), maxsplit), sep)

    def rsplit(self, sep: str | None = None, maxsplit: SupportsIndex = -1) -> list[str]:
        return self._parts(self._text.rsplit(original(sep), maxsplit), sep)

    def splitlines(self, keepends: bool = False) -> list[str]:
        whole = self._parts(self._text.splitlines(True), "")
        lengths = map(len, self._text.splitlines(keepends))
        return [line[:length] for line, length in zip(whole, lengths, strict=True)]

    def partition(self, sep: str) -> tuple[str, str, str]:
        head, middle, tail = self._parts(list(self._text.partition(original(sep))), "")
        return head, middle, tail

    def rpartition(self, sep: str) -> tuple[str, str, str]:
        head, middle, tail = self._parts(list(self._text.rpartition(original(sep))), "")
        return head, middle, tail

    def replace(self, old: str, new: str, count: SupportsIndex = -1) -> MessageText:
        if not old:
            return MessageText(super().replace(old, new, count))
        return MessageText(new).join(self.split(old, count))

    def _parts(self, parts: list[str], sep: str | None) -> list[str]:
        """These parts of the original text, with `sep` or white space between them, as parts of this one."""
        result: list[str] = []
        start = 0
        for part in parts:
            if sep is None:
                start = self._text.index(part, start)
            result.append(self[start : start + len(part)])
            start += len(part) + len(sep or "")
        return result


def original(value: Any) -> Any:
    """The value with the original text for each text in it; keys too."""
    if isinstance(value, MessageText):
        return value._text
    if isinstance(value, str):
        return value if value.isascii() else value.translate(_originals)
    if isinstance(value, dict):
        return {original(key): original(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(original(item) for item in value)
    return value


def has_stand_ins(value: Any) -> bool:
    """Return whether a text in the value has characters from messages; keys count too."""
    if isinstance(value, str):
        return not str.isascii(value) and any(ord(char) in _originals for char in str.__iter__(value))
    if isinstance(value, dict):
        return has_stand_ins(list(value)) or has_stand_ins(list(value.values()))
    return isinstance(value, list | tuple) and any(map(has_stand_ins, value))


def escape_all(text: str) -> MessageText:
    """A text of which nothing is the template's."""
    return MessageText(text.translate(_stand_ins), text)


def as_message_text(value: Any) -> Any:
    """The value with a MessageText for each text that has stand-ins, or may have; other kinds stay."""
    if type(value) is str:
        return value if value.isascii() else MessageText(value)
    if type(value) is dict:
        return {as_message_text(key): as_message_text(item) for key, item in value.items()}
    if type(value) is list:
        return [as_message_text(item) for item in value]
    return value


def _reader(name: str) -> Callable[..., Any]:
    """A method of str that is given the original texts."""
    read = getattr(str, name)
    return lambda self, *arguments: read(self._text, *original(arguments))


def _comparison(name: str) -> Callable[..., Any]:
    compare = getattr(str, name)
    return lambda self, other: compare(self._text, original(other))


def _case(name: str) -> Callable[[MessageText], MessageText]:
    """A method of str that changes the case; a character of a message stays one."""
    change = getattr(str, name)

    def convert(self: MessageText) -> MessageText:
        text: str = change(self._text)
        if len(text) != len(self):
            return escape_all(text)
        places = zip(str.__iter__(self), self._text, text, strict=True)
        return MessageText(
            "".join(new if char == old else _stand_ins.get(ord(new), new) for char, old, new in places), text
        )

    return convert


for _name in READERS:
    setattr(MessageText, _name, _reader(_name))
for _name in ("__eq__", "__ne__", "__lt__", "__le__", "__gt__", "__ge__"):
    setattr(MessageText, _name, _comparison(_name))
for _name in CASES:
    setattr(MessageText, _name, _case(_name))
