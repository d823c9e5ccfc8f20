"""Compare a program's output or result with the right one, as public judges do, or to the letter.

White space: ends of lines, empty lines at the end, CRLF and the number of spaces between two words do not
count; line breaks do. Only where the right line is a picture (it is indented or has several spaces in a row,
and holds more than numbers) do its spaces count.

Numbers: an integer must be equal in value (`3.0` is 3). Where the right number has a point or an exponent,
one within 1e-6 of it, relative to the larger, or 1e-9, absolute, is right: `2.5` is 2.50 and
`0.30000000000000004` is 0.3, but `0.000002` is not 0.000001. Two integers written as digits must have the
same digits: `007` is not 7.
"""

import json
import re
from decimal import Context, Decimal
from typing import Any

RELATIVE, ABSOLUTE = Decimal("1e-6"), Decimal("1e-9")
MAX_INT_DIGITS = 4000
"""Python reads longer integers from text only where a process allows it; longer ones are read as Decimal."""
MATH = Context(prec=50, traps=[])
INTEGER = re.compile(r"[-+]?[0-9]+")
NUMBER = re.compile(r"[-+]?(?:[0-9]++(?:\.[0-9]*+)?|\.[0-9]++)(?:[eE][-+]?[0-9]{1,4})?")
PICTURE = re.compile(r"[ \t]|[^ \t]+(?: [^ \t]+)*+[ \t][ \t]")
ENDS = " \t\v\f"
GAP = re.compile(f"[{ENDS}]+")


def same_output(output: str, right: str, *, is_strict: bool = False) -> bool:
    """Return whether the outputs are equal; with `is_strict` to the letter, except for a last newline."""
    if is_strict:
        return output.removesuffix("\n") == right.removesuffix("\n")
    lines, right_lines = _lines(output), _lines(right)
    return len(lines) == len(right_lines) and all(map(_same_line, lines, right_lines))


def same_result(text: str, right: Any, *, is_strict: bool = False) -> bool:
    """Return whether the JSON of a function's result is this value.

    Types count: `true` is not 1, and "2" is not 2. Numbers are compared as in outputs, so 2.0 is 2; with
    `is_strict` floats are equal to the last bit.
    """
    try:
        return _same_value(json.loads(text, parse_int=_integer, parse_constant=_refuse), right, is_strict)
    except (ValueError, RecursionError):  # not JSON, or nested too deeply
        return False


def _lines(text: str) -> list[str]:
    lines = [line.rstrip(ENDS) for line in text.replace("\r\n", "\n").replace("\r", "\n").split("\n")]
    while lines and not lines[-1]:
        lines.pop()
    return lines


def _same_line(line: str, right: str) -> bool:
    if line == right:
        return True
    words, right_words = GAP.split(line.strip(ENDS)), GAP.split(right.strip(ENDS))
    if PICTURE.match(right) and not all(map(NUMBER.fullmatch, right_words)):
        return False
    return len(words) == len(right_words) and all(map(_same_word, words, right_words))


def _same_word(word: str, right: str) -> bool:
    if word == right:
        return True
    is_integer = bool(INTEGER.fullmatch(right))
    if not (NUMBER.fullmatch(word) and NUMBER.fullmatch(right)) or (is_integer and INTEGER.fullmatch(word)):
        return False
    return Decimal(word) == Decimal(right) if is_integer else _is_close(Decimal(word), Decimal(right))


def _is_close(value: Decimal, right: Decimal) -> bool:
    error = MATH.abs(MATH.subtract(value, right))
    largest = max(abs(value), abs(right))
    return error.is_finite() and error <= max(ABSOLUTE, MATH.multiply(RELATIVE, largest))


def _same_value(value: Any, right: Any, is_strict: bool) -> bool:
    if isinstance(value, dict) and isinstance(right, dict):
        return value.keys() == right.keys() and all(_same_value(value[k], right[k], is_strict) for k in value)
    if isinstance(value, list) and isinstance(right, list):
        pairs = zip(value, right, strict=False)
        return len(value) == len(right) and all(_same_value(*pair, is_strict) for pair in pairs)
    if isinstance(value, bool) or isinstance(right, bool):
        return value is right
    if isinstance(right, float) and isinstance(value, (int, float, Decimal)) and not is_strict:
        return _is_close(Decimal(value), Decimal(right))
    return bool(value == right)


def _integer(digits: str) -> int | Decimal:
    return int(digits) if len(digits) <= MAX_INT_DIGITS else Decimal(digits)


def _refuse(word: str) -> None:
    raise ValueError(f"{word} is not JSON")
