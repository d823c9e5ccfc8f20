r"""The choice that an answer to a multiple-choice question gives: one letter, or none.

In this order: the last box (`\boxed{B}`, `\boxed{\text{(B) 12}}`, or the words of one choice); the last
statement ("The answer is (B)", "Answer: **B**", "B is correct"); an answer, or the only one of its lines,
that is a letter and little else ("B.", "(B) Paris"), or the words of one choice; the only letter named in the
last paragraph.
A letter within a word is none, nor is the article in "the answer is a car". Two letters in one place are a
hedge, and "not B" is no choice: then there is no answer.
"""

import re
import string
from collections.abc import Sequence

from shoestring.tasks.values.final_answer import boxes, statement

LETTERS = string.ascii_uppercase
END_CHARS = 2000
LOOK = r"[\s*_$({\[\"'`“]*+"
"""Spaces, bold, brackets and quotation marks, which may stand before a letter."""
NAME = r"(?:(?:option|choice|letter|answer)\b" + LOOK + ")?+"
AFTER = r"(?![A-Za-z0-9'’])"
STATEMENT = re.compile(
    r"\b(?:answer|choice|option|solution)\b(?:\s+(?:to|for|of)\s+[^.:\n]{1,80}?)?"
    rf"(?:\s*(?::|=|-|→)|\s+(?:is|would be|must be|should be|seems to be|therefore is)(?:\s*:)?){LOOK}{NAME}"
    rf"(?:\\(?:text|textbf|mathbf|mathrm|boxed)\s*{{)?{LOOK}(?P<letter>[A-Z]){AFTER}(?=(?P<rest>[^\n]{{0,60}}))",
    re.IGNORECASE,
)
PRAISE = re.compile(
    rf"(?<![A-Za-z0-9'’\\])(?P<letter>[A-Z]){AFTER}(?=(?P<rest>[)\]*]*\s+is\s+(?:therefore\s+|thus\s+)?(?:the\s+)?"
    r"(?:correct|right|best|answer)\b))"
)
# After the article there is a noun; after the choice A an end, a bracket or the reason.
NOT_ARTICLE = re.compile(
    r"\s*(?:$|[^\w\s]|because\b|since\b|as\b|for\b|which\b|and\b|or\b|but\b|is\b|with\b|\()", re.IGNORECASE
)
MORE = re.compile(
    rf"{LOOK}[)\].}}*_$]*\s*(?:,\s*or|,|/|or|and|&|nor)\s*{LOOK}{NAME}(?P<letter>[A-Z]){AFTER}(?!\s+[a-z])"
)
WRAPPING = re.compile(r"\\(?:text|textbf|mathbf|mathrm|bf|boxed)\s*\{|[\s*_$(){}\[\]\"'`“”.:;,!]")
LABEL = re.compile(rf"^{LOOK}{NAME}(?P<letter>[A-Z])(?:[)\].:}}*]+(?P<rest>.*)|\s*)$", re.DOTALL)
ALONE = re.compile(rf"(?<![A-Za-z0-9'’\\])(?P<letter>[A-Z]){AFTER}")
NEGATION = re.compile(
    r"(?:\bnot|n't|\bneither|\brather than|\binstead of)\s+(?:option|choice)?[\s(*]*$", re.IGNORECASE
)


def choice_of(answer: str, choices: Sequence[str]) -> str | None:
    """The letter that an answer gives for its `choices`, or None; linear in the length of the answer."""
    letters = LETTERS[: len(choices)]
    for content in reversed(boxes(answer)[-5:]):
        if letter := _label(content, letters) or _of_words(content, choices):
            return letter
    end = answer[-END_CHARS:].strip()
    for pattern in (STATEMENT, PRAISE):
        statements = [match for match in pattern.finditer(end) if _is_choice(match, letters)]
        if statements:
            return _unhedged(statements[-1], letters)
    lines = [line for line in end.split("\n") if line.strip()] or [""]
    labels = {_label(line, letters) for line in lines} - {None}
    return (
        _label(end, letters)
        or _of_words(statement(answer) or end, choices)
        or (labels.pop() if len(labels) == 1 else None)
        or _of_words(lines[-1], choices)
        or (None if labels else _only_letter(re.split(r"\n\s*\n", end)[-1], letters))
    )


def _is_choice(match: re.Match[str], letters: str) -> bool:
    letter = match["letter"]
    if letter.upper() not in letters:
        return False
    before = match.string[: match.start("letter")]
    is_bracketed = before.endswith(("(", "{", "[", "*", "$", '"', "'")) or not match["rest"].strip(" .!*)]}$")
    if letter.islower():
        return is_bracketed
    return is_bracketed or letter not in "AI" or bool(NOT_ARTICLE.match(match["rest"]))


def _unhedged(match: re.Match[str], letters: str) -> str | None:
    """The letter of a statement, unless another one follows it."""
    letter = match["letter"].upper()
    more = MORE.match(match.string, match.end("letter"))
    return None if more and more["letter"] in letters and more["letter"] != letter else letter


def _label(text: str, letters: str) -> str | None:
    """The letter of a text that is a letter, or a letter as a label and the words of the choice."""
    bare = WRAPPING.sub("", text)
    if len(bare) == 1 and bare.upper() in letters:
        return bare.upper()
    match = LABEL.match(re.sub(r"\\(?:text|textbf|mathbf|mathrm|bf)\s*\{", "(", text.strip()))
    if match is None or match["letter"] not in letters or len(text) > 300 or "\n" in text.strip():
        return None
    others = {m["letter"] for m in ALONE.finditer(match["rest"] or "") if m["letter"] in letters}
    return match["letter"] if others <= {match["letter"], "A", "I"} else None


def _of_words(text: str, choices: Sequence[str]) -> str | None:
    """The letter of the only choice with exactly these words."""
    words = _plain(text)
    same = [number for number, choice in enumerate(choices) if words and _plain(choice) == words]
    return LETTERS[same[0]] if len(same) == 1 else None


def _plain(text: str) -> str:
    return WRAPPING.sub(" ", text).strip().lower().removesuffix("}").strip()


def _only_letter(text: str, letters: str) -> str | None:
    """The only letter that a paragraph names, leaving out the words A and I, and letters that are denied."""
    names = set()
    for match in ALONE.finditer(text):
        letter = match["letter"]
        if letter not in letters:
            continue
        if NEGATION.search(text, max(0, match.start() - 40), match.start()):
            continue
        is_bracketed = text[match.start() - 1 : match.start()] in ("(", "*", "[")
        if is_bracketed or letter not in "AI" or NOT_ARTICLE.match(text, match.end()):
            names.add(letter)
    return names.pop() if len(names) == 1 else None
