r"""Regular expressions of requests in llguidance's dialect: `\d`, `\w` and `\s` are ASCII.

A schema's `pattern` is ECMA-262's. Where readers disagree (ECMA's, Python's) the narrower reading is taken,
so that the text is valid for each of them.
"""

import re
from typing import Any

from shoestring.errors import ConfigError

UNWRITABLE = frozenset({*range(0x08), 0x0B, *range(0x0E, 0x20), 0x7F})
"""Control characters without a short escape in JSON: a constrained document cannot hold them."""
NOT_WRITABLE = r"\x00-\x07\x0b\x0e-\x1f\x7f"
NOTHING = r"[^\x00-\x{10ffff}]"
LAST = 0x10FFFF

ASCII = {"d": "0-9", "w": "0-9A-Za-z_", "s": r"\t\n\x0b\x0c\r\x20"}
NARROW = {
    "d": "0-9",
    "w": "0-9A-Za-z_",
    "s": r"\t\n\x0c\r\x20",
    "D": rf"[^\p{{Nd}}{NOT_WRITABLE}]",
    "W": rf"[^\p{{L}}\p{{M}}\p{{N}}\p{{Pc}}\p{{Cf}}{NOT_WRITABLE}]",
    "S": rf"[^\s\x{{feff}}{NOT_WRITABLE}]",
}
"""Members of these classes for every reader."""
WIDE = {
    "d": r"\p{Nd}",
    "w": r"\p{L}\p{M}\p{N}\p{Pc}\p{Cf}",
    "s": rf"[\s\x{{feff}}--[{NOT_WRITABLE}]]",
    "D": f"[^0-9{NOT_WRITABLE}]",
    "W": f"[^0-9A-Za-z_{NOT_WRITABLE}]",
    "S": rf"[^\t\n\x0c\r\x20{NOT_WRITABLE}]",
}
"""Members for some reader: they stand in negated classes."""
WIDE_END = r"\x{a}?$"
"""The end of a text, in Python also before a line break."""
CONTROLS = {"t": 0x09, "n": 0x0A, "v": 0x0B, "f": 0x0C, "r": 0x0D, "0": 0}
HEX = re.compile(r"x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|[xu]\{([0-9a-fA-F]{1,6})\}|c([A-Za-z])")
PROPERTY = re.compile(r"[pP](\{[^}]*\}|[A-Z])")
COUNT = re.compile(r"\{\d+(,\d*)?\}")
GROUP = re.compile(r"\?(:|=|!|<=|<!|P?<[A-Za-z_]\w*>|i\)|i:)")


def ascii_classes(regex: str) -> str:
    r"""A regex in which `\d`, `\w`, `\s` and their complements are ASCII, as in vLLM."""
    result, depth, place = [], 0, 0
    while place < len(regex):
        char, next_char = regex[place], regex[place + 1 : place + 2]
        width = 1
        if char == "\\":
            width, letter = 2, next_char.lower()
            if letter in ASCII:
                members = ASCII[letter] if letter == next_char else f"[^{ASCII[letter]}]"
                char = members if depth or letter != next_char else f"[{members}]"
            else:
                char += next_char
        elif char == "[":
            depth += 1
            opening = re.match(r"\[\^?\]?" if depth == 1 else r"\[\^?", regex[place:])
            assert opening is not None
            char, width = opening.group(), len(opening.group())
        elif char == "]" and depth:
            depth -= 1
        result.append(char)
        place += width
    return "".join(result)


def schema_pattern(pattern: str, *, is_wide: bool = False) -> str:
    """A schema's pattern for llguidance, without the characters that a document cannot hold.

    It finds what every reader finds in a text, or with `is_wide` what some reader finds. Raises ConfigError,
    a part of a sentence, for what readers cannot agree on.
    """
    return _Reader(pattern, is_wide=is_wide).read()


def name_pattern(pattern: str, others: Any) -> str:
    """A pattern of patternProperties beside `others`, the schema of names without a pattern.

    If they are free, the pattern's schema is for all names that some reader finds; if there are none, only
    for names that every reader finds.
    """
    narrow, wide = schema_pattern(pattern), schema_pattern(pattern, is_wide=True)
    if others is True or others == {}:
        return wide
    if others is not False and wide.replace(WIDE_END, "$") != narrow:
        raise ConfigError(
            r"is taken differently by different readers: write classes like [0-9] for '.' or '\w'"
        )
    return narrow


def whole_regex(pattern: str) -> str:
    """The regex of the whole texts in which a pattern of `schema_pattern` is found."""
    branches: list[str] = [""]
    depth = group = 0
    for place, char in enumerate(pattern):
        depth += (char == "[") - (char == "]")
        if not depth:
            group += (char == "(") - (char == ")")
        is_first, is_last = not branches[-1], pattern[place + 1 : place + 2] in ("", "|")
        if char == "|" and not depth and not group:
            branches.append("")
            continue
        if not depth and (
            (char == "^" and (group or not is_first)) or (char == "$" and (group or not is_last))
        ):
            raise ConfigError(f"has {char} between other parts")
        branches[-1] += char
    return "|".join(
        ("" if text.startswith("^") else "(?s:.*)")
        + f"(?:{text.removeprefix('^').removesuffix('$')})"
        + ("" if text.endswith("$") else "(?s:.*)")
        for text in branches
    )


class _Reader:
    """One pass over a pattern."""

    def __init__(self, pattern: str, *, is_wide: bool) -> None:
        self.text, self.place, self.is_wide = pattern, 0, is_wide

    def read(self) -> str:
        result = []
        while self.place < len(self.text):
            result.append(self._part())
        return "".join(result)

    def _part(self) -> str:
        char = self._next()
        if char == "\\":
            escape = self._escape()
            return _literal(escape) if isinstance(escape, int) else f"[{escape}]"
        if char == "[":
            return self._class()
        if char == "$" and self.is_wide:
            return WIDE_END
        if char == "." and self.is_wide:
            return rf"[^\n{NOT_WRITABLE}]"
        if char == ".":
            return rf"[^\n\r\x{{2028}}\x{{2029}}{NOT_WRITABLE}]"
        if char == "(" and self.text[self.place : self.place + 1] == "?":
            group = GROUP.match(self.text, self.place)
            if group is None:
                raise ConfigError(
                    f"has the group '({self.text[self.place : self.place + 3]}', which not all readers know"
                )
            self.place = group.end()
            return f"({group.group()}"
        if char == "{":
            count = COUNT.match(self.text, self.place - 1)
            if count is None:
                raise ConfigError(r"has a '{' that begins no count; write '\{'")
            self.place = count.end()
            return count.group() + self._after_count()
        if char in "*+?":
            return char + self._after_count()
        return char if char in "^$()|" else _literal(ord(char))

    def _after_count(self) -> str:
        following = self.text[self.place : self.place + 1]
        if following == "+":
            raise ConfigError("has a possessive count, which not all readers know")
        if following == "?":
            self.place += 1
        return following if following == "?" else ""

    def _next(self) -> str:
        self.place += 1
        return self.text[self.place - 1]

    def _match(self, regex: re.Pattern[str]) -> re.Match[str] | None:
        match = regex.match(self.text, self.place)
        if match is not None:
            self.place = match.end()
        return match

    def _escape(self, *, in_class: bool = False, is_negated: bool = False) -> int | str:
        """The number of the character behind a backslash, or the members of the class."""
        if self.place == len(self.text):
            raise ConfigError("ends with a backslash")
        code = self._match(HEX)
        if code is not None:
            if code.group(4):
                return ord(code.group(4)) % 32
            number = int(code.group(1) or code.group(2) or code.group(3), 16)
            return self._surrogate(number) if 0xD800 <= number < 0xE000 else number
        category = self._match(PROPERTY)
        if category is not None:
            members = f"\\{category.group()}"
            return (
                members
                if is_negated
                else f"{members}--[{NOT_WRITABLE}]"
                if not in_class
                else f"[{members}--[{NOT_WRITABLE}]]"
            )
        char = self._next()
        if char in NARROW:
            return (WIDE if is_negated != self.is_wide else NARROW)[char]
        if char in CONTROLS:
            return CONTROLS[char]
        if char == "b" and in_class:
            return 0x08
        if char.isascii() and char.isalnum():
            raise ConfigError(f"has the escape '\\{char}', which is not supported")
        return ord(char)

    def _surrogate(self, high: int) -> int:
        low = self._match(re.compile(r"\\u([dD][c-fC-F][0-9a-fA-F]{2})"))
        if low is None or high >= 0xDC00:
            raise ConfigError("has a lone surrogate, which is not a character")
        return 0x10000 + ((high - 0xD800) << 10) + int(low.group(1), 16) - 0xDC00

    def _class(self) -> str:
        is_negated = self.text[self.place : self.place + 1] == "^"
        self.place += is_negated
        if self.text[self.place : self.place + 1] == "]":
            raise ConfigError("has an empty class")
        members: list[str] = []
        while self.text[self.place : self.place + 1] != "]":
            first = self._member(is_negated)
            following = self.text[self.place : self.place + 2]
            if following[:1] == "-" and following != "-]" and len(following) == 2:
                self.place += 1
                last = self._member(is_negated)
                if isinstance(first, str) or isinstance(last, str):
                    raise ConfigError("has a class with a range that does not go from character to character")
                if first > last:
                    raise ConfigError("has a class with a range that runs backwards")
                members += _ranges(first, last, keep_all=is_negated)
            else:
                members += [first] if isinstance(first, str) else _ranges(first, first, keep_all=is_negated)
        self.place += 1
        if is_negated:
            return f"[^{''.join(members)}{NOT_WRITABLE}]"
        return f"[{''.join(members)}]" if members else NOTHING

    def _member(self, is_negated: bool) -> int | str:
        if self.place >= len(self.text):
            raise ConfigError("has a class without ']'")
        char = self._next()
        return self._escape(in_class=True, is_negated=is_negated) if char == "\\" else ord(char)


def _ranges(first: int, last: int, *, keep_all: bool) -> list[str]:
    """A range of characters, without those that cannot be written."""
    ranges, begin = [], first
    for gap in sorted(n for n in UNWRITABLE if not keep_all and first <= n <= last):
        if begin < gap:
            ranges.append((begin, gap - 1))
        begin = gap + 1
    if begin <= last:
        ranges.append((begin, last))
    return [f"{_code(low)}-{_code(high)}" if low < high else _code(low) for low, high in ranges]


def _code(number: int) -> str:
    char = chr(number)
    return char if char.isascii() and char.isalnum() else f"\\x{{{number:x}}}"


def _literal(number: int) -> str:
    return NOTHING if number in UNWRITABLE else _code(number)
