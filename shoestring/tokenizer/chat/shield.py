"""Disarm message text before a stranger's template sees it, so that no special token can come out of it."""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from shoestring.errors import TokenizerError

# Values that templates compare with, and that cannot spell anything by themselves.
WORDS = {"function", "object", "string", "number", "integer", "boolean", "array", "null", "text"}
WORDS |= {"system", "user", "assistant", "tool"}
PRIVATE = (range(0xE000, 0xF900), range(0xF0000, 0xFFFFE))


class Shield:
    """Replaces single characters of message text by private-use stand-ins, and puts them back later.

    Chosen over encoding the contents apart, because templates trim, split and slice contents; and over
    inserting marks, because lengths and trimming stay as they are. In each string, whichever way its
    letters' case is changed, it replaces the first character of: every spelling of a special token; an
    end of the string that begins one (`<｜User`); a start that ends one (`User｜>`); and a whole string
    from inside one (`User`, for templates that write `<｜{{ name }}｜>`). So neither a string alone, nor
    beside other strings, nor beside the template's own text spells a special token. A template that
    deletes or replaces characters inside contents could still join the halves of one; none that is
    known does. The stand-ins occur nowhere in the input, so restoring loses nothing.
    """

    def __init__(self, spellings: "Spellings", but_thinking: "Spellings", inputs: Any) -> None:
        """`inputs` is everything that is rendered, the template too: no stand-in may occur in it."""
        self._unused = _unused_characters(set("".join(_strings(inputs))))
        self.generation_marks = self._fresh() + self._fresh()
        self._stand_in: dict[str, str] = {}
        self._all, self._but_thinking = spellings, but_thinking

    @property
    def stand_ins(self) -> dict[str, str]:
        """Each stand-in so far, and the character it stands for."""
        return {stand_in: char for char, stand_in in self._stand_in.items()}

    def message(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """A message with its strings disarmed; the thinking tags of an assistant's content are left."""
        shielded = {str(self.value(key)): self.value(value) for key, value in message.items()}
        if message["role"] == "assistant" and isinstance(message.get("content"), str):
            shielded["content"] = self._disarm(message["content"], self._but_thinking)
        return shielded

    def value(self, value: Any) -> Any:
        """Any JSON value with its strings disarmed; keys too, where they spell a whole special token."""
        if isinstance(value, str):
            return value if value in WORDS else self._disarm(value, self._all)
        if isinstance(value, Mapping):
            return {
                self._disarm(str(key), self._all, edges=False): self.value(item)
                for key, item in value.items()
            }
        if isinstance(value, Sequence):
            return [self.value(item) for item in value]
        if value is None or isinstance(value, bool | int | float):
            return value
        raise TokenizerError(
            f"a message holds a {type(value).__name__}; chat templates take only JSON values"
        )

    def restore(self, text: str) -> str:
        """Rendered text with the original characters."""
        return text.translate({ord(stand_in): char for char, stand_in in self._stand_in.items()})

    def _disarm(self, text: str, spellings: "Spellings", *, edges: bool = True) -> str:
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
        char = next(self._unused, None)
        if char is None:
            raise TokenizerError("the conversation uses every private-use character; remove some of them")
        return char


class Spellings:
    """Where text holds special tokens or parts that neighbors could complete, ignoring case."""

    def __init__(self, specials: Sequence[str]) -> None:
        self._lower = [special.lower() for special in specials]
        self._begins = {special[:n] for special in self._lower for n in range(1, len(special))}
        self._ends = {special[n:] for special in self._lower for n in range(1, len(special))}
        self._longest = max(map(len, self._lower), default=0)
        # Matching at a position, not over it, finds spellings that overlap.
        self._at = re.compile(f"(?={any_of(specials)})", re.IGNORECASE)

    def whole(self, text: str) -> Iterator[int]:
        """First character of each whole spelling."""
        return (found.start() for found in self._at.finditer(text))

    def edges(self, text: str) -> Iterator[int]:
        """Characters to replace so that the text, or the text trimmed, completes no spelling."""
        for first, last in {(0, len(text)), (len(text) - len(text.lstrip()), len(text.rstrip()))}:
            inner = text[first:last].lower()
            if len(inner) != last - first or not inner:  # a letter whose lower case is two characters
                continue
            lengths = range(1, min(len(inner), self._longest) + 1)
            if any(inner[:n] in self._ends for n in lengths) or any(
                inner in special for special in self._lower
            ):
                yield first
            yield from (last - n for n in lengths if inner[-n:] in self._begins)


def any_of(words: Collection[str]) -> str:
    """A regular expression for the longest of `words` at a position; it never tries one character twice."""
    rests: dict[str, list[str]] = {}
    for word in words:
        if word:
            rests.setdefault(word[0], []).append(word[1:])
    if not rests:
        return "(?!)"
    branches = []
    for first, tails in rests.items():
        length = next(
            (i for i, chars in enumerate(zip(*tails, strict=False)) if len(set(chars)) > 1),
            min(map(len, tails)),
        )
        after = [tail[length:] for tail in tails]
        more = any_of(after) if any(after) else ""
        branches.append(re.escape(first + tails[0][:length]) + more + ("?" if more and "" in after else ""))
    return f"(?:{'|'.join(branches)})"


def _unused_characters(used: set[str]) -> Iterator[str]:
    return (chr(code) for codes in PRIVATE for code in codes if chr(code) not in used)


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
