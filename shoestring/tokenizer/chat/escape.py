"""Escaping of message texts for Jinja templates, so that no special token comes out of them."""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cache
from typing import Any

from shoestring.errors import TokenizerError
from shoestring.tokenizer.special import THINK_TAGS, any_of

STAND_INS = (range(0x2801, 0x2900), range(0x4DC0, 0x4E00), range(0x20000, 0x2A6E0))
"""Rare characters (Braille, hexagrams, ideographs) without case, which Python's `repr` prints as they are."""


class Escaper:
    """Replaces characters of message texts by rare characters, and puts them back later.

    Replaced is every character that occurs in a special token, in either case. However a template cuts and
    joins texts, no part of a special token in its result is then from a message. The stand-ins do not occur
    in the input, so nothing is lost. The child process (message_text.py) gives the template the results that
    comparisons and methods have for the original text.

    Thinking tags in an assistant's content become special tokens where they are written whole: they have
    stand-ins of their own.
    """

    def __init__(self, specials: Collection[str], inputs: Any) -> None:
        """Choose stand-ins that do not occur in `inputs`: all that is rendered, the template too."""
        self._free_characters = free_characters(inputs)
        self.generation_marks = self._fresh() + self._fresh()
        tags = [tag for tag in THINK_TAGS if tag in specials]
        self._tag_table = {ord(char): self._fresh() for char in sorted(set("".join(tags)))}
        self._table = {ord(char): self._fresh() for char in characters_of(frozenset(specials))}
        self._find_tag = re.compile(any_of(tags))
        self.tags = [tag.translate(self._tag_table) for tag in tags]

    @property
    def stand_ins(self) -> dict[str, str]:
        """Character that each stand-in replaces; those of thinking tags come first."""
        return {
            stand_in: chr(code)
            for table in (self._tag_table, self._table)
            for code, stand_in in table.items()
        }

    def escape_message(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """Escape the strings of a message, all but its role, which comes from a fixed list."""
        result = self.escape({**message, "role": None})
        result[self.escape("role")] = message["role"]
        if message["role"] == "assistant" and isinstance(message.get("content"), str):
            result[self.escape("content")] = self._escape_around_tags(message["content"])
        return dict(result)

    def escape(self, value: Any) -> Any:
        """Escape the strings of a JSON value, the keys too."""
        if isinstance(value, str):
            return value.translate(self._table)
        if isinstance(value, Mapping):
            return {self.escape(str(key)): self.escape(item) for key, item in value.items()}
        if isinstance(value, Sequence):
            return [self.escape(item) for item in value]
        if value is None or isinstance(value, bool | int | float):
            return value
        raise TokenizerError(
            f"a message contains a {type(value).__name__}; only JSON values are allowed in chat templates"
        )

    def unescape(self, text: str) -> str:
        """Put the original characters back into rendered text."""
        return text.translate({ord(stand_in): char for stand_in, char in self.stand_ins.items()})

    def _escape_around_tags(self, text: str) -> str:
        parts, end = [], 0
        for match in self._find_tag.finditer(text):
            parts += [text[end : match.start()].translate(self._table), match[0].translate(self._tag_table)]
            end = match.end()
        return "".join([*parts, text[end:].translate(self._table)])

    def _fresh(self) -> str:
        char = next(self._free_characters, None)
        if char is None:
            raise TokenizerError(
                "the conversation uses every rare character that could stand in for special tokens; "
                "remove some of them"
            )
        return char


@cache
def characters_of(specials: frozenset[str]) -> tuple[str, ...]:
    """The characters of special tokens, and those that a change of case makes into one of them."""
    characters = set("".join(specials))
    characters |= set("".join(char.upper() + char.lower() + char.title() for char in characters))
    return tuple(sorted(characters | {c for c, forms in cases().items() if not forms.isdisjoint(characters)}))


@cache
def cases() -> dict[str, frozenset[str]]:
    """Characters that have other cases, with the characters of those."""
    every = map(chr, range(0x80, 0x20000))
    return {
        char: frozenset(char.upper() + char.lower() + char.title() + char.casefold())
        for char in every
        if char.upper() != char or char.lower() != char
    }


def free_characters(inputs: Any) -> Iterator[str]:
    """Rare characters that do not occur in the strings of a JSON value."""
    characters = set("".join(_strings(inputs)))
    return (chr(code) for codes in STAND_INS for code in codes if chr(code) not in characters)


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield str(key)
            yield from _strings(item)
    elif isinstance(value, Sequence):
        for item in value:
            yield from _strings(item)
