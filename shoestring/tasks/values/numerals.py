r"""Numerals as people and models write them, read exactly: 1,234.50, 1 234, .5, 1.6e-19, 0.1\overline{6}."""

import re
from dataclasses import dataclass
from fractions import Fraction

MAX_DIGITS = 4_000
"""Python itself reads no more than 4300."""
MAX_EXPONENT = 9_999
EXPONENT = r"(?:[eE][-+]?+[0-9]++(?![A-Za-z0-9]))?+"
PLAIN = rf"(?:[0-9]++(?:\.[0-9]++)?+|\.[0-9]++){EXPONENT}"
# 1,234,567.8 and 1.234.567,8: of one mark alone, a comma groups and a point is the decimal one.
COMMAS = r"[0-9]{1,3}+(?:,[0-9]{3})++(?![0-9])(?:\.[0-9]++)?+"
POINTS = r"[0-9]{1,3}+(?:(?:\.[0-9]{3}){2,}+(?![.0-9])(?:,[0-9]++)?+|(?:\.[0-9]{3})++,[0-9]++)(?![,.]?[0-9])"
SPACES = r"[0-9]{1,3}+(?:[ \u00a0\u2009\u202f][0-9]{3})++(?![0-9])(?:\.[0-9]++)?+"
REPEATING = r"[0-9]*+\.[0-9]*+\\(?:overline|bar|dot)\s*+(?:\{[0-9]{1,99}\}|[0-9])"
SEPARATORS = re.compile("[,  \u00a0\u2009\u202f]")
PARTS = re.compile(r"([0-9]*)\.?([0-9]*)(?:[eE]([-+]?[0-9]+))?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Numeral:
    """A number as it is written, without a sign."""

    value: Fraction
    step: Fraction | None = None
    """The value of one in its last place, when it is written with a point or an exponent."""
    digits: int = 0
    """Its significant digits, zeros at the end included."""


def numeral(text: str) -> Numeral | None:
    """Read one numeral; None when it has too many digits or too large an exponent."""
    if len(text) > MAX_DIGITS:
        return None
    if "\\" in text:
        return _repeating(text)
    if re.fullmatch(POINTS, text):
        text = text.replace(".", "").replace(",", ".")
    text = SEPARATORS.sub("", text)
    parts = PARTS.fullmatch(text)
    if parts is None or not (parts[1] or parts[2]):
        return None
    exponent = int(parts[3] or 0) if len(parts[3] or "") <= 6 else MAX_EXPONENT + 1
    if abs(exponent) > MAX_EXPONENT:
        return None
    power = exponent - len(parts[2])
    digits = parts[1] + parts[2]
    step = Fraction(10) ** power
    is_decimal = "." in text or parts[3] is not None
    value = int(digits) * step
    return Numeral(value=value, step=step if is_decimal else None, digits=len(digits.lstrip("0")))


def _repeating(text: str) -> Numeral:
    """The value of `0.1` and `6` repeated for ever: 1/6."""
    head, _, tail = text.partition("\\")
    whole, _, places = head.partition(".")
    period = re.sub(r"[^0-9]", "", tail)
    value = Fraction(int(whole + places or 0), 10 ** len(places))
    value += Fraction(int(period), (10 ** len(period) - 1) * 10 ** len(places))
    return Numeral(value=value)
