"""Read a reply: its thinking and its answer; and the value of plain arithmetic, which is never run."""

import re
from dataclasses import dataclass
from fractions import Fraction

THINK, THINK_END = "<think>", "</think>"
ANSWER, ANSWER_END = "<answer>", "</answer>"
MAX_EXPRESSION_CHARS = 1000
MAX_DEPTH = 50
"""Of nested parentheses."""

TOKEN = re.compile(r"[ \t\n]*([0-9]++(?:\.[0-9]++)?|[-+*/()])")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """The two parts of an assistant's turn."""

    thinking: str | None
    """Between the first `<think>` (or the start) and the last `</think>`; None without such tags."""
    answer: str
    """Empty when the reply ends inside its thinking: thinking never counts as an answer."""


def split_reply(text: str) -> Reply:
    """Split a reply. The answer follows the last `</think>`; its last `<answer>...</answer>` is all of it."""
    before, end, after = text.rpartition(THINK_END)
    if THINK in after:  # it began to think (again) and did not finish
        thinking = text.partition(THINK)[2] or text
        return Reply(thinking=thinking.strip(), answer="")
    if not end:
        return Reply(thinking=None, answer=_inner_answer(after))
    _, start, rest = before.partition(THINK)
    return Reply(thinking=(rest if start else before).strip(), answer=_inner_answer(after))


def evaluate(expression: str) -> Fraction | None:
    """The exact value of numbers, `+ - * /`, signs and parentheses; None for anything else.

    Only ASCII counts: digits and operators of other alphabets, `**`, `//`, `2(3)` and `1_000` are no
    expressions. None also for a division by zero, more than 1000 characters or 50 nested parentheses.
    """
    tokens = _tokens(expression)
    if tokens is None:
        return None
    try:
        value, end = _sum(tokens, 0, 0)
    except (ValueError, ZeroDivisionError):
        return None
    return value if end == len(tokens) - 1 else None


def numbers_in(expression: str) -> list[Fraction]:
    """The numbers in an expression, in order and without signs; none when it has a wrong character."""
    return [Fraction(token) for token in _tokens(expression) or () if token[:1].isdigit()]


def _inner_answer(text: str) -> str:
    for piece in reversed(text.split(ANSWER)[1:]):
        inner, end, _ = piece.partition(ANSWER_END)
        if end:
            return inner.strip()
    return text.strip()


def _tokens(expression: str) -> list[str] | None:
    """Numbers, operators and parentheses, then "" for the end; None for any other character."""
    if len(expression) > MAX_EXPRESSION_CHARS:
        return None
    tokens, position, text = [], 0, expression.rstrip(" \t\n")
    while position < len(text):
        match = TOKEN.match(text, position)
        if match is None:
            return None
        tokens.append(match[1])
        position = match.end()
    return [*tokens, ""]


def _sum(tokens: list[str], at: int, depth: int) -> tuple[Fraction, int]:
    """The value of the sum that starts at token `at`, and where it ends; ValueError when there is none."""
    value, at = _product(tokens, at, depth)
    while tokens[at] in ("+", "-"):
        term, end = _product(tokens, at + 1, depth)
        value, at = (value + term if tokens[at] == "+" else value - term), end
    return value, at


def _product(tokens: list[str], at: int, depth: int) -> tuple[Fraction, int]:
    value, at = _atom(tokens, at, depth)
    while tokens[at] in ("*", "/"):
        factor, end = _atom(tokens, at + 1, depth)
        value, at = (value * factor if tokens[at] == "*" else value / factor), end
    return value, at


def _atom(tokens: list[str], at: int, depth: int) -> tuple[Fraction, int]:
    sign = 1
    while tokens[at] in ("+", "-"):
        sign, at = (sign if tokens[at] == "+" else -sign), at + 1
    if tokens[at] != "(":
        return sign * Fraction(tokens[at]), at + 1  # Fraction("") and Fraction("*") raise ValueError
    if depth == MAX_DEPTH:
        raise ValueError("nested too deeply")
    value, at = _sum(tokens, at + 1, depth + 1)
    if tokens[at] != ")":
        raise ValueError("a parenthesis is not closed")
    return sign * value, at + 1
