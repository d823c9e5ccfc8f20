"""Escaping of message texts for Jinja templates, so that no special token comes out of them."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from shoestring.errors import TokenizerError
from shoestring.tokenizer.special import any_of

# Values that templates compare with; none of them alone is a special token.
PLAIN_WORDS = {"function", "object", "string", "number", "integer", "boolean", "array", "null", "text"}
PLAIN_WORDS |= {"system", "user", "assistant", "tool"}
STAND_INS = (range(0x2801, 0x2900), range(0x4DC0, 0x4E00), range(0x20000, 0x2A6E0))
"""Rare characters (Braille, hexagrams, ideographs) without case, which Python's `repr` prints as they are."""


class Escaper:
    """Replaces single characters of message texts by rare characters, and puts them back later.

    Encoding the contents separately would not do, because templates trim, split and slice them; inserted
    marks would change lengths and trimming. In each string, in upper and lower case, it replaces the first
    character of every special token. With `edges` it also replaces every character that begins or ends one
    (`<`, `>`), and the first of a whole string from inside one (`User`, for templates that write
    `<｜{{ name }}｜>`). Then no string or slice of one spells a special token, alone, next to other strings,
    or next to text of the template. The stand-ins do not occur in the input, so nothing is lost.
    """

    def __init__(
        self, spellings: "Spellings", but_thinking: "Spellings", inputs: Any, *, edges: bool = True
    ) -> None:
        """Choose stand-ins that do not occur in `inputs`: all that is rendered, the template too."""
        self._free_characters, self._edges = free_characters(inputs), edges
        self.generation_marks = self._fresh() + self._fresh()
        self._stand_in: dict[str, str] = {}
        self._all, self._but_thinking = spellings, but_thinking

    @property
    def stand_ins(self) -> dict[str, str]:
        """Character that each stand-in replaces, for those used so far."""
        return {stand_in: char for char, stand_in in self._stand_in.items()}

    def escape_message(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """Escape the strings of a message, except for the thinking tags in an assistant's content."""
        result: dict[str, Any] = self.escape(message)
        if message["role"] == "assistant" and isinstance(message.get("content"), str):
            result["content"] = self._escape_text(message["content"], self._but_thinking, edges=self._edges)
        return result

    def escape(self, value: Any, *, edges: bool = True) -> Any:
        """Escape the strings of a JSON value; keys only where they contain a whole special token."""
        edges = edges and self._edges
        if isinstance(value, str):
            return value if value in PLAIN_WORDS else self._escape_text(value, self._all, edges=edges)
        if isinstance(value, Mapping):
            return {
                self._escape_text(str(key), self._all, edges=False): self.escape(item, edges=edges)
                for key, item in value.items()
            }
        if isinstance(value, Sequence):
            return [self.escape(item, edges=edges) for item in value]
        if value is None or isinstance(value, bool | int | float):
            return value
        raise TokenizerError(
            f"a message contains a {type(value).__name__}; only JSON values are allowed in chat templates"
        )

    def unescape(self, text: str) -> str:
        """Put the original characters back into rendered text."""
        return text.translate({ord(stand_in): char for char, stand_in in self._stand_in.items()})

    def _escape_text(self, text: str, spellings: "Spellings", *, edges: bool) -> str:
        places = set(spellings.whole(text))
        if edges:
            places.update(spellings.edges(text))
        if not places:
            return text
        chars = list(text)
        for place in places:
            char = chars[place]
            if char not in self._stand_in:
                self._stand_in[char] = self._fresh()
            chars[place] = self._stand_in[char]
        return "".join(chars)

    def _fresh(self) -> str:
        char = next(self._free_characters, None)
        if char is None:
            raise TokenizerError(
                "the conversation uses every rare character that could stand in for special tokens; "
                "remove some of them"
            )
        return char


class Spellings:
    """Finds special tokens in a text, and parts of them that other text could complete, in any case."""

    def __init__(self, specials: Sequence[str], but: Sequence[str] = ()) -> None:
        """Look for `specials`; words in `but` are left as they are."""
        self._lower = [special.lower() for special in specials]
        borders = {re.escape(char) for special in specials for char in (special[:1], special[-1:]) if char}
        # A lookahead also finds spellings that overlap.
        self._at = re.compile(f"(?={any_of(specials)})", re.IGNORECASE)
        self._border = re.compile(f"{any_of(but)}|({'|'.join(sorted(borders)) or '(?!)'})", re.IGNORECASE)

    def whole(self, text: str) -> Iterator[int]:
        """Positions of all special tokens."""
        return (match.start() for match in self._at.finditer(text))

    def edges(self, text: str) -> Iterator[int]:
        """Positions to replace so that no other text completes a special token with a part of this one."""
        for match in self._border.finditer(text):
            if match.group(1):
                yield match.start(1)
        inner = text.strip()
        if inner and any(inner.lower() in special for special in self._lower):
            yield text.index(inner)
            yield 0


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
