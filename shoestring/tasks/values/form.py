"""Canonical forms: equal answers have one, so that they can be counted; and what one text states."""

import re
from fractions import Fraction
from typing import Any

from shoestring.tasks.values.compare import ROUNDED_DIGITS, difference, meanings
from shoestring.tasks.values.compute import digits, is_close, ratio, short_hash, values, variables
from shoestring.tasks.values.normal import normal
from shoestring.tasks.values.numerals import Numeral
from shoestring.tasks.values.parse import parse
from shoestring.tasks.values.tokens import BrokenLatex, Token, Unread, tokens
from shoestring.tasks.values.tree import Node

SMALL_DENOMINATOR = 100
DECIMAL_COMMA = re.compile(r"\s*-?[0-9]{1,15},[0-9]{1,15}\s*")
PUNCTUATION = (".", ",", '"', "'", "(", ")", "!")
UNIT_LETTER = re.compile(r"(?<=[0-9}])\s+(?:m|g|s|h|l|L|N|J|W|V|A|K)(?=\s*(?:\^\s*\{?[23]\}?)?\s*$)")


def readings(text: str, *, is_reply: bool = False) -> list[Node]:
    """The trees that a text may mean; 1,234 may be a list, and in a reply 1,5 may be 1.5 and `5 m` 5 metres.

    Raises BrokenLatex; none for a text that is no value known here.
    """
    texts = [text]
    if DECIMAL_COMMA.fullmatch(text) and (is_reply or text.lstrip("-").startswith("0")):
        texts.append(text.replace(",", "."))
    if is_reply and (match := UNIT_LETTER.search(text)):
        texts.append(text[: match.start()] + rf"\text{{{match[0]}}}" + text[match.end() :])
    trees: list[Node] = []
    for version in texts:
        for groups in (True, False):
            try:
                node = normal(parse(version, groups=groups))
            except (Unread, RecursionError):
                continue
            if node not in trees:
                trees.append(node)
    return trees


def vote(text: str) -> str | None:
    """The canonical form of an answer: equal values have one, as far as equality is transitive.

    Never raises, and takes bounded time; a text that is no value is its own form.
    """
    try:
        trees = readings(text, is_reply=True)
        return _form(trees[0]) if trees else plain(text)
    except (Unread, RecursionError):
        return plain(text)
    except BrokenLatex:
        return None


def plain(text: str) -> str | None:
    """A text without its look, to compare what is no value; None when nothing is left. Raises BrokenLatex."""
    try:
        sequence = tokens(text)
    except Unread:
        return " ".join(text.split())[:2000] or None
    if all(token.kind == "word" or token.text in PUNCTUATION for token in sequence):
        words = [token.text.lower() for token in sequence if token.kind == "word"]
        return " ".join(words) or None
    return " ".join(_without_groups(sequence)) or None


def _without_groups(sequence: list[Token]) -> list[str]:
    """The texts of tokens, without braces around one character."""
    texts = [{"open": "{", "close": "}"}[t.kind] if t.text == "group" else t.text for t in sequence]
    for at in range(len(texts) - 2):
        if texts[at] == "{" and texts[at + 2] == "}" and len(texts[at + 1]) == 1:
            texts[at] = texts[at + 2] = ""
    return [text for text in texts if text]


def is_value(text: str) -> bool:
    """Return whether a text is a value that can be read."""
    try:
        return bool(readings(text, is_reply=True))
    except BrokenLatex:
        return False


def number_of(text: str) -> Fraction | None:
    """The one fraction that a text states, without its unit or percent sign; None for anything else."""
    try:
        node = next(iter(readings(text)), None)
        while node is not None and node.kind in ("assignment", "measure", "percent", "degrees"):
            node = node.parts[0 if node.kind != "assignment" else 1]
        value = values(node)[0] if node is not None and not variables(node) else None
    except (Unread, BrokenLatex):
        return None
    return value if isinstance(value, Fraction) else None


def _form(node: Node) -> str:
    """The canonical form of a tree."""
    if node.kind == "assignment":
        return _form(node.parts[1])
    if node.kind == "measure" or (node.kind == "percent" and len(list(meanings(node))) > 1):
        return _form(node.parts[0])
    if node.kind == "degrees":
        return _form(node.parts[0])
    if node.kind == "variable":
        return str(node.parts[0])
    if node.kind == "words":
        return " ".join(node.parts).lower()
    if node.kind in ("list", "set", "union"):
        forms = [_form(part) for part in node.parts]
        forms = sorted(forms if node.kind == "list" else set(forms))
        return ("union" if node.kind == "union" else "") + "{" + ", ".join(forms) + "}"
    if node.kind == "tuple":
        return f"{node.parts[0]}{', '.join(map(_form, node.parts[2:]))}{node.parts[1]}"
    if node.kind == "matrix":
        return "[" + "; ".join(", ".join(map(_form, row)) for row in node.parts) + "]"
    if node.kind == "ratio":
        return ":".join(_form(Node("quotient", (part, node.parts[-1]))) for part in node.parts)
    if node.kind == "equation":
        return _scaled(difference(node)) + " = 0"
    if node.kind == "inequality":
        return f"{_scaled(difference(node, 1))} {node.parts[0]} 0"
    if node.kind in ("based", "time"):
        return ("_" if node.kind == "based" else ":").join(map(str, node.parts))
    if node.kind in ("relation", "intersection", "difference"):
        return short_hash(_outline(node))
    return _number_form(node)


def _outline(part: Any) -> str:
    """A tree as text, with every number exact."""
    if isinstance(part, Numeral):
        return digits(part.value)
    parts = part.parts if isinstance(part, Node) else part if isinstance(part, tuple) else ()
    kind = part.kind if isinstance(part, Node) else "" if parts else str(part)
    return f"{kind}({' '.join(map(_outline, parts))})" if parts else kind


def _number_form(node: Node) -> str:
    numbers = values(node)
    if len(numbers) > 1:
        if all(value is not None and is_close(value, numbers[0]) for value in numbers[1:]):
            return digits(numbers[0])  # the variables cancel
        return short_hash(" ".join(map(_digits, numbers[:2])))
    value, literal = numbers[0], node.literal
    assert value is not None
    if literal is not None and literal.step is not None and literal.digits >= ROUNDED_DIGITS:
        simple = Fraction(value).limit_denominator(SMALL_DENOMINATOR)
        value = simple if abs(simple - value) < literal.step else value
    return digits(value)


def _scaled(node: Node) -> str:
    numbers = [value for value in values(node) if value is not None]
    ratios = [digits(ratio(value, abs(numbers[0]))) if numbers[0] else "0" for value in numbers]
    return short_hash(" ".join(ratios))


def _digits(value: Fraction | None) -> str:
    return "none" if value is None else digits(value)
