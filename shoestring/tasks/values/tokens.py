r"""Tokens of an answer in LaTeX or plain text: numbers, variables, words, units, operators, brackets."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from shoestring.tasks.values.numerals import COMMAS, PLAIN, POINTS, REPEATING, SPACES, Numeral, numeral
from shoestring.tasks.values.units import UNITS

MAX_CHARS = 2000
MAX_TOKENS = 1000
FUNCTIONS = frozenset(
    """
sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh log ln lg exp sqrt abs min max gcd lcm""".split()  # noqa: SIM905
)
# What changes only how an answer looks. `\left.` is a bracket that is not shown.
LOOKS = re.compile(
    r"\\(?:left|right|[bB]igg?[lrm]?|middle)\s*+(?:\.|(?=[^A-Za-z]|\\))|\\(?:display|text|script)style(?![A-Za-z])"
    r"|\\(?:bf|it|rm|limits|nolimits|boldsymbol|mathstrut|strut|noindent)(?![A-Za-z])"
    r"|\\(?:text)?color\s*+\{[^{}]*+\}|(?<=,)\\!\s*+|\\[hv]?phantom\s*+\{[^{}]*+\}|\\!|\\/|\u200b|\ufeff|\*\*"
)
SPACE = re.compile(r"(?<!\\)\\[,;:> ]|~|\\q?quad|\\[hv]space\*?+\s*+\{[^{}]*+\}|\\(?=\n)")
PHRASE_ALONE = re.compile(r"[A-Za-z][-A-Za-z,.' ]*+")
PHRASE = re.compile("[A-Za-z]+")
NO_WORDS = FUNCTIONS | {"and", "or", "pi", "infinity", "inf", "oo"}
DOUBLE_SLASH = re.compile(r"\\\\(?=[A-Za-z])")
COMMA = re.compile(r"(?<=[0-9])\s*+\{\s*+,\s*+\}\s*+(?=([0-9]{3}(?![0-9]))?)")
CHARACTERS = {
    "−": "-", "–": "-", "×": r"\times ", "·": r"\cdot ", "⋅": r"\cdot ", "÷": "/", "≤": r"\le ",
    "≥": r"\ge ", "≠": r"\ne ", "∞": r"\infty ", "π": r"\pi ", "∪": r"\cup ", "∩": r"\cap ", "∈": r"\in ",
    "±": r"\pm ", "∓": r"\mp ", "≈": r"\approx ", "°": r"^\circ ", "∅": r"\emptyset ", "²": "^2 ",
    "³": "^3 ", "½": r"\frac12 ", "¼": r"\frac14 ", "¾": r"\frac34 ", "⅓": r"\frac13 ", "⅔": r"\frac23 ",
    "¢": r"\text{ cents}", "€": r"\euro ", "£": r"\pounds ", "√": r"\sqrt ", "θ": r"\theta ",
    "α": r"\alpha ", "β": r"\beta ", "⟨": r"\langle ", "⟩": r"\rangle ", "ℝ": r"\mathbb{R}", "…": r"\ldots ",
    "’": "'", "′": "'",
}  # fmt: skip
SAME_COMMAND = {
    "dfrac": "frac", "tfrac": "frac", "cfrac": "frac", "nicefrac": "frac", "sfrac": "frac",
    "dbinom": "binom", "tbinom": "binom", "leq": "le", "leqslant": "le", "geq": "ge", "geqslant": "ge",
    "neq": "ne", "lt": "<", "gt": ">", "to": "rightarrow", "cdot": "*", "times": "*", "ast": "*", "div": "/",
    "colon": ":", "lvert": "|", "rvert": "|", "vert": "|", "mid": "|", "lbrace": "{", "rbrace": "}",
    "lbrack": "[", "rbrack": "]", "simeq": "approx", "doteq": "approx", "varnothing": "emptyset",
    "land": "and", "lor": "or", "wedge": "and", "vee": "or", "tg": "tan", "ctg": "cot",
    "degree": "circ", "infin": "infty",  "lparen": "(", "rparen": ")", "choose": "choose",
    "cr": "\\", "dots": "ldots", "cdots": "ldots", "dotsc": "ldots", "newline": "\\",
}  # fmt: skip
FONTS = (
    r"text|textbf|textit|textrm|textsf|texttt|textnormal|mbox|hbox|"
    r"mathrm|mathbf|mathit|mathsf|operatorname\*?|emph|underline|rm|bm|pmb|mathbb|mathcal|mathfrak"
)
FONT = re.compile(rf"\\(?P<font>{FONTS})\s*+\{{")
ENVIRONMENT = r"\\(?:begin|end)\s*+\{\s*+[A-Za-z]++\*?+\s*+\}(?:\s*+\{[clr|]++\}|\s*+\[[clr|]++\])?+"
REST = (
    rf"(?P<environment>{ENVIRONMENT})|(?P<command>\\[A-Za-z]++|\\.)|(?P<letters>[A-Za-z]++(?:-[A-Za-z]{{3,}}+)*+)"
    r"|(?P<space>\s++)|(?P<other><=|>=|!=|=>|->|.)"
)
# In brackets a comma parts a list, and elsewhere it may group digits.
TOKEN = {
    False: re.compile(rf"(?P<number>{REPEATING}|{SPACES}|{PLAIN})|{REST}", re.DOTALL),
    True: re.compile(rf"(?P<number>{REPEATING}|{POINTS}|{COMMAS}|{SPACES}|{PLAIN})|{REST}", re.DOTALL),
}


class BrokenLatex(Exception):
    """A text that LaTeX itself could not print: braces that do not match, or an argument that is missing."""


class Unread(Exception):
    """A text that is no value which this reader knows, or one that is too large."""


@dataclass(frozen=True, slots=True)
class Token:
    """One token; `kind` is number, variable, word, command, open, close, or for all others operator."""

    kind: str
    text: str
    number: Numeral | None = None
    is_apart: bool = False
    """White space stands before it."""


def tokens(text: str, *, groups: bool = True) -> list[Token]:
    """The tokens of an answer; with `groups` a comma outside brackets may group digits, as in 1,234.

    Raises BrokenLatex for braces that do not match, and Unread for more than 2000 characters.
    """
    if len(text) > MAX_CHARS:
        raise Unread("too long")
    for character, latex in CHARACTERS.items():
        text = text.replace(character, latex)
    if r"\begin" not in text:
        text = DOUBLE_SLASH.sub(r"\\", text)
    text = SPACE.sub(" ", LOOKS.sub("", text))
    text = COMMA.sub(lambda match: "" if match[1] else ".", text).strip().removesuffix(".").rstrip()
    sequence = list(_scan(text, groups, is_words=_is_phrase(text)))
    if len(sequence) > MAX_TOKENS:
        raise Unread("too long")
    return sequence


def _scan(text: str, groups: bool, *, is_words: bool) -> Iterator[Token]:
    """Tokens of a text; with `is_words`, inside `\text{}`, letters are always words."""
    at, depth, braces, is_apart = 0, 0, 0, False
    while at < len(text):
        if (font := FONT.match(text, at)) is not None:
            end = _closing(text, font.end())
            if font["font"] == "mathbb" and text[font.end() : end].strip() == "R":
                yield Token("word", "reals", None, is_apart)
                at = end + 1
                continue
            yield from _styled(font["font"], text[font.end() : end], groups and depth == 0)
            at, is_apart = end + 1, False
            continue
        match = TOKEN[groups and depth == 0].match(text, at)
        assert match is not None
        at = match.end()
        if match["space"]:
            is_apart = True
            continue
        for token in _read(match, is_words, is_apart):
            depth += (token.kind == "open") - (token.kind == "close")
            braces += (token.text == "group") * (1 if token.kind == "open" else -1)
            if braces < 0:
                raise BrokenLatex("a brace closes nothing")
            yield token
        is_apart = False
    if braces:
        raise BrokenLatex("a brace is not closed")


def _closing(text: str, start: int) -> int:
    """The place of the brace that closes the one before `start`."""
    depth, at = 1, start
    while at < len(text):
        if text[at] == "\\":
            at += 1
        elif text[at] in "{}":
            depth += 1 if text[at] == "{" else -1
            if not depth:
                return at
        at += 1
    raise BrokenLatex("a brace is not closed")


def _styled(font: str, content: str, groups: bool) -> Iterator[Token]:
    """Tokens of `\text{...}` and its like: letters are words, but one letter in a font is a variable."""
    is_letter = len(content.strip()) == 1 and font not in ("text", "mbox", "hbox", "textnormal", "textrm")
    is_words = not (is_letter and (font != "mathrm" or content.strip() in "eidxyzABCDE"))
    for number, token in enumerate(_scan(content, groups, is_words=is_words)):
        yield replace(token, is_apart=True) if number == 0 else token


def _read(match: re.Match[str], is_words: bool, is_apart: bool) -> Iterator[Token]:
    kind, text = match.lastgroup, match[0]
    if kind == "number":
        value = numeral(text)
        if value is None:
            raise Unread("a number that is too long")
        yield Token("number", text, value, is_apart)
    elif kind == "letters":
        is_attached = not is_apart and match.start() > 0 and match.string[match.start() - 1].isdigit()
        yield from _letters(text, is_words, is_apart, is_attached)
    elif kind == "environment":
        yield Token("command", re.sub(r"[\\\s]", "", text.partition("}")[0] + "}"), None, is_apart)
    elif kind == "command":
        yield from _command(text[1:], is_apart)
    elif text != "$" and not (is_words and text == "."):
        yield _character(text, is_apart)


def _letters(text: str, is_words: bool, is_apart: bool, is_attached: bool) -> Iterator[Token]:
    """A word, a function or a unit, or the product of one-letter variables, as in 2xy."""
    lower = text.lower()
    if lower in ("and", "or"):
        yield Token("operator", lower, None, is_apart)
    elif lower in FUNCTIONS:
        yield Token("command", lower, None, is_apart)
    elif lower in ("pi", "infinity", "inf", "oo"):
        yield Token("command", "pi" if lower == "pi" else "infty", None, is_apart)
    elif is_words or _is_word(text, is_attached):
        yield Token("word", text, None, is_apart)
    else:
        for number, letter in enumerate(text):
            yield Token("variable", letter, None, is_apart and number == 0)


def _is_word(text: str, is_attached: bool) -> bool:
    if len(text) > 1 and text.lower() in UNITS:
        return True
    if len(text) <= 2 or is_attached:
        return False
    return len(text) > 3 or list(text) != sorted(text)  # abc and xyz are products


def _is_phrase(text: str) -> bool:
    """Return whether a text is words alone, such as No solution."""
    words = PHRASE.findall(text) if PHRASE_ALONE.fullmatch(text) else []
    return len(words) > 1 and any(_is_word(word, False) and word.lower() not in NO_WORDS for word in words)


def _command(name: str, is_apart: bool) -> Iterator[Token]:
    name = SAME_COMMAND.get(name, name)
    if name in ("{", "langle", "lfloor", "lceil"):
        yield Token("open", name, None, is_apart)
    elif name in ("}", "rangle", "rfloor", "rceil"):
        yield Token("close", name, None, is_apart)
    elif name in ("$", "euro", "pounds"):
        yield Token("word", {"$": "dollar", "euro": "euro", "pounds": "pound"}[name], None, is_apart)
    elif name in ("*", "/", "<", ">", "le", "ge", "ne", ":", "|", "%", "and", "or", "pm", "mp", "in", "cup",
                  "cap", "approx", "\\", "&", "(", ")", "[", "]"):  # fmt: skip
        yield _character(name, is_apart)
    else:
        yield Token("command", name, None, is_apart)


def _character(text: str, is_apart: bool) -> Token:
    text = {"<=": "le", ">=": "ge", "!=": "ne", "=>": "rightarrow", "->": "rightarrow"}.get(text, text)
    if text in "([":
        return Token("open", text, None, is_apart)
    if text in ")]":
        return Token("close", text, None, is_apart)
    if text in "{}":
        return Token("open" if text == "{" else "close", "group", None, is_apart)
    return Token("operator", text, None, is_apart)
