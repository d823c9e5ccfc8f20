r"""The final answer in the text of an answer: in its last box, after `####`, or what it says last.

The last `\boxed{}` counts, wherever it stands, and of boxes in one another the inner one: a model corrects
itself by a new box. When that box is never closed, the answer was cut off, and there is none. The text is
what follows the thinking (`split_reply`): a box inside `<think>` is no answer, nor is one in thinking that
never ends, as DeepSeek-R1's rewards want the thinking closed and the answer after it.
"""

import re
from fractions import Fraction

from shoestring.tasks.values.form import is_value, number_of
from shoestring.tasks.values.numerals import COMMAS, EXPONENT, SPACES, numeral

BRACES = re.compile(
    r"(?P<box>\\(?:boxed|fbox|framebox)\s*+\{)|(?P<bare>\\boxed\s*+(?P<token>-?[0-9][0-9.,/]*+|[A-Za-z](?![A-Za-z])))"
    r"|\\[{}]|\\\\(?!boxed|fbox)|(?P<open>\{)|(?P<close>\})"
)
PHRASE = re.compile(
    r"\b(?:answer|result)\s*+(?:(?:is|are)\b(?!['’])|=|:)(?:\s*+:)?(?!\s*+not\b)", re.IGNORECASE
)
SECOND_THOUGHT = re.compile(
    r"\b(?:wait|actually|correction|mistake|no,|recheck|let me (?:check|verify|re|redo|think))", re.IGNORECASE
)
FORMULA = re.compile(
    r"\$\$(?P<a>[^$]++)\$\$|\$(?P<b>[^$\n]++)\$|\\\[(?P<c>(?:(?!\\\]).)++)\\\]|\\\((?P<d>(?:(?!\\\)).)++)\\\)",
    re.DOTALL,
)
SENTENCE_END = re.compile(r"[.!?](?:\s|$)|\n|$")
NEGATION = re.compile(r"\b(?:not|n't|isn't|never)\s+(?:\\?\$)?$", re.IGNORECASE)
BETWEEN = re.compile(r"(?:[\s,;.$()\[\]]|\\[()\[\],; ]|\\q?quad|and|or|\\text\{\s*(?:and|or)\s*\})*")
MOST_BETWEEN = 60
HEDGE = re.compile(r"[^.;]{0,30}\b(?:or|and)\b[^.;]{0,10}", re.IGNORECASE)
CLAUSE_END = re.compile(r"[,;:]\s|\s(?:because|since|which|as|for|when|if|where|so)\s")
END_CHARS = 2000
"""The end of a text without a mark, where its answer is."""
SHORT_WORDS = 12
# Digits of other alphabets, exponents and letters beside a numeral change its meaning: it is not read.
OTHER_MEANING = r"[\d^⁰-⁹²³¹½¼¾]|[eE][0-9]|[xyz](?![A-Za-z0-9])"
DIGITS = rf"(?:{COMMAS}|{SPACES}|[0-9]++(?:\.[0-9]++)?+|\.[0-9]++){EXPONENT}(?!{OTHER_MEANING})"
BESIDE = r"[^\W\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|[\^.]"  # Chinese, Japanese, Korean need no space
NUMBER = re.compile(
    rf"(?:(?<![\w)\]}}])(?P<minus>[-−]))?\$?(?<!{BESIDE})(?:(?P<whole>[0-9]++)[ ](?=[0-9]+/))?"
    rf"(?P<over>{DIGITS})(?:/(?P<under>{DIGITS}))?"
)
WORDS = re.compile(r"\\(?:text|textbf|textit|mathrm|mathbf|mbox)\s*+\{([^{}\\]*+)\}")
FRACTION = re.compile(r"\\[dt]?frac\{([^{}\\]{0,99})\}\{([^{}\\]{0,99})\}")


def boxes(text: str) -> list[str]:
    r"""Contents of the `\boxed{...}` in a text, of boxes in one another the inner ones; linear in its length.

    The last one is "" when a box begins after all others and is never closed.
    """
    return [content for content, _, _ in _spans(text)]


def last_boxes(text: str) -> list[str]:
    r"""Contents of the last boxes with only "and", "or" or a comma between them: one answer in parts."""
    spans = _spans(text)
    first = len(spans) - 1
    while first > 0 and BETWEEN.fullmatch(text[spans[first - 1][2] : spans[first][1]][:MOST_BETWEEN]):
        first -= 1
    return [content for content, _, _ in spans[max(first, 0) :]]


def _spans(text: str) -> list[tuple[str, int, int]]:
    """Content, start and end of each box."""
    starts: list[tuple[int, int]] = []  # of each open brace and of its content; -1 for a brace that is no box
    last, spans = -1, []
    for match in BRACES.finditer(text):
        if match["bare"]:
            spans.append((match["token"].rstrip(".,/"), match.start(), match.end()))
        elif match["box"] or match["open"]:
            starts.append((match.start(), match.end() if match["box"] else -1))
        elif match["close"] and starts:
            begin, start = starts.pop()
            if start > last:
                last = start
                spans.append((text[start : match.start()], begin, match.end()))
    if any(start > last for _, start in starts):
        spans.append(("", len(text), len(text)))
    return spans


def mark(answer: str) -> str | None:
    """The answer in the last box or after the last `####`; "" for a box that is not closed, None without."""
    contents = boxes(answer)
    if contents:
        return contents[-1]
    lines = [line.strip().partition("\n")[0].rstrip() for line in answer.split("####")[1:]]
    return next((line for line in reversed(lines) if re.search("[0-9]", line)), lines[-1] if lines else None)


def statement(answer: str) -> str | None:
    """The text after "the answer is" in an answer without a mark, or None.

    It does not count when second thoughts follow ("wait, ...").
    """
    end = answer[-END_CHARS:].replace("**", "").replace("__", "")
    phrases = list(PHRASE.finditer(end))
    if not phrases or SECOND_THOUGHT.search(end, phrases[-1].end()):
        return None
    rest = end[phrases[-1].end() :].lstrip(" *:\n")
    if formula := FORMULA.match(rest):
        return formula[formula.lastgroup or 0]
    return rest[: SENTENCE_END.search(rest).start()].strip() or None  # type: ignore[union-attr]


def candidates(answer: str) -> list[str]:
    """The texts that an answer without a mark may mean, the best first.

    They are the text after "the answer is" or a part of it, else the last formula, the whole of a short text,
    the last number.
    """
    sentence = statement(answer)
    if sentence is not None:
        number = (
            NUMBER.search(sentence) if "\\" not in sentence else None
        )  # a number in a formula is no answer
        return [sentence, CLAUSE_END.split(sentence, maxsplit=1)[0], *([number[0]] if number else [])]
    end = answer[-END_CHARS:].strip()
    formula = None
    for formula in FORMULA.finditer(end):  # noqa: B007
        pass
    number = _last(end)
    texts = []
    if formula is not None and (number is None or number.end() <= formula.end()):
        texts.append(formula[formula.lastgroup or 0])
        number = None if number is not None and number.start() >= formula.start() else number
    if len(end.split()) <= SHORT_WORDS:
        texts.append(end)
    if number is not None:
        texts.append(number[0])
    return [text for text in texts if text.strip()]


def final_number(answer: str) -> Fraction | None:
    r"""The exact number that an answer states: in its last box, after the last `####`, else its last.

    A box or a `####` line must hold one value: two are a hedge. Its unit, `$`, `%` and look do not count, and
    `\frac{36}{2}`, `2\frac12`, `9 + 9 = 18` and `1.8\times 10^1` are values. Elsewhere "the answer is" comes
    before the last number.
    """
    content = mark(answer)
    if content is not None:
        number = number_of(content)
        return number if number is not None else _only_number(content)
    sentence = statement(answer)
    if sentence is not None:
        numbers = list(NUMBER.finditer(sentence.rpartition("=")[2]))
        if len(numbers) > 1 and HEDGE.fullmatch(numbers[0].string, numbers[0].end(), numbers[1].start()):
            return None
        if numbers:
            return _number(numbers[0])
    return _number(_last(FRACTION.sub(r"\1/\2", answer)))


def _last(text: str) -> re.Match[str] | None:
    match = None
    for match in NUMBER.finditer(text):  # noqa: B007
        pass
    return None if match is None or NEGATION.search(text, 0, match.start()) else match


def _only_number(content: str) -> Fraction | None:
    """The number in a content of words; None when it holds two, or other mathematics."""
    if is_value(content):
        return None
    content = WORDS.sub(r" \1 ", content)
    numbers = list(NUMBER.finditer(content))
    if len(numbers) != 1 or re.search(r"[\\^{}=+*<>≤≥±]|\.\.", content):
        return None
    return None if NEGATION.search(content, 0, numbers[0].start()) else _number(numbers[0])


def _number(match: re.Match[str] | None) -> Fraction | None:
    if match is None:
        return None
    parts = [
        numeral(match[name] or default) for name, default in (("over", ""), ("under", "1"), ("whole", "0"))
    ]
    if any(part is None for part in parts):
        return None
    over, under, whole = (part.value for part in parts if part is not None)
    if not under:
        return None
    value = whole + over / under
    return -value if match["minus"] else value
