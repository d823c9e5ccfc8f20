"""Parts of a text as the instructions count them: words, sentences, paragraphs."""

import re

WORD = re.compile(r"\w+")
CAPITAL_WORD = re.compile(r"(?<!\w)[^\W\d_][\w'’&.-]*")
# A sentence ends at . ! ? before a space and what begins another; the marks of other scripts need no space.
SENTENCE_END = re.compile(
    r"(?<![.!?؟])[.!?؟]++[\"'”’)\]*_]*+(?=\s++[\"'“‘(\[*_#-]*+[^\W_a-z]|\s*+$)|[。！？।]++[”’」』]*+"
    r"|\n[ \t]*+\n"
)
ABBREVIATION = re.compile(
    r"\b(?:Mr|Mrs|Ms|Dr|Prof|St|Sr|Jr|vs|etc|e\.g|i\.e|approx|No|Vol|Fig|Inc|Ltd|Co|Gen|Sen|Rep|Capt|Lt|Mt"
    r"|Jan|Feb|Mar|Apr|Aug|Sept?|Oct|Nov|Dec|[A-Z]|[A-Z]\.[A-Z])\.$"
)


def count_words(text: str) -> int:
    """Runs of letters, digits and underscores, so that `don't` is two, as IFEval counts."""
    return len(WORD.findall(text))


def count_sentences(text: str) -> int:
    """Sentences, by their marks and what follows; a point after an abbreviation ends none."""
    text = text.strip()
    count, start = 0, 0
    for match in SENTENCE_END.finditer(text):
        if match.end() < len(text) and ABBREVIATION.search(text[max(start, match.end() - 12) : match.end()]):
            continue
        count += bool(WORD.search(text, start, match.end()))
        start = match.end()
    return count + bool(WORD.search(text, start))


def count_capital_words(text: str) -> int:
    """Words all of whose letters are capital, such as NASA, U.S. and I."""
    return sum(match[0].isupper() for match in CAPITAL_WORD.finditer(text))


def divided(text: str, divider: str) -> list[str]:
    """The parts between dividers; empty ones at the start and the end do not count."""
    parts = [part.strip() for part in re.split(divider, text)]
    if parts and not parts[0]:
        parts = parts[1:]
    return parts[:-1] if parts and not parts[-1] else parts


def paragraphs(text: str) -> list[str]:
    """Paragraphs with an empty line between them."""
    return [part.strip() for part in re.split(r"\n[ \t]*\n", text) if part.strip()]
