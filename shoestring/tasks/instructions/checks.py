"""One check for each of the 25 instructions of IFEval: whether a text follows it.

The arguments have the names of IFEval's data. The checks decide as its authors' program does, with these
differences, where that program does not check its own instruction: paragraphs with an empty line between
them are counted and numbered alike, keywords are texts and no patterns, sentences are found by our own rule
and languages by `language.py`. All take time linear in the text.
"""

import json
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from shoestring.tasks.instructions.language import is_in
from shoestring.tasks.instructions.text import (
    count_capital_words,
    count_sentences,
    count_words,
    divided,
    paragraphs,
)

ANSWERS = ("My answer is yes.", "My answer is no.", "My answer is maybe.")
BULLET = re.compile(r"^[ \t]*(?:\*[^*\n]|-)", re.MULTILINE)
HIGHLIGHT, BOLD = re.compile(r"\*([^*\n]*)\*"), re.compile(r"\*\*([^*\n]*)\*\*")
PLACEHOLDER, TITLE = re.compile(r"\[[^\[\]\n]*\]"), re.compile(r"<<([^<>\n]+)>>")
RELATIONS = ("less than", "at least")


def relates(count: int, relation: str, limit: int) -> bool:
    """Return whether a count is `less than` or `at least` a limit."""
    if relation not in RELATIONS:
        raise ValueError(f"the relation {relation!r} is none of {', '.join(RELATIONS)}")
    return count < limit if relation == "less than" else count >= limit


def has_keywords(text: str, *, keywords: list[str]) -> bool:
    return all(keyword.lower() in text.lower() for keyword in keywords)


def has_keyword_often(text: str, *, keyword: str, frequency: int, relation: str) -> bool:
    return relates(text.lower().count(keyword.lower()), relation, frequency)


def has_no_word_of(text: str, *, forbidden_words: list[str]) -> bool:
    return not any(re.search(rf"\b{re.escape(word)}\b", text, re.IGNORECASE) for word in forbidden_words)


def has_letter_often(text: str, *, letter: str, let_frequency: int, let_relation: str) -> bool:
    return relates(text.lower().count(letter.lower()), let_relation, let_frequency)


def has_language(text: str, *, language: str) -> bool:
    return is_in(text, language)


def has_words(text: str, *, num_words: int, relation: str) -> bool:
    return relates(count_words(text), relation, num_words)


def has_sentences(text: str, *, num_sentences: int, relation: str) -> bool:
    return relates(count_sentences(text), relation, num_sentences)


def has_divided_paragraphs(text: str, *, num_paragraphs: int) -> bool:
    """Paragraphs with `***` between them, none of them empty."""
    parts = divided(text, r"\s?\*\*\*\s?")
    return len(parts) == num_paragraphs and all(parts)


def has_first_word(text: str, *, num_paragraphs: int, nth_paragraph: int, first_word: str) -> bool:
    """So many paragraphs with an empty line between them, of which one begins with a word."""
    parts = paragraphs(text)
    if len(parts) != num_paragraphs or not 1 <= nth_paragraph <= len(parts):
        return False
    word = re.split(r"[.,?!'\"\s]", parts[nth_paragraph - 1].split()[0].lstrip("'\""), maxsplit=1)[0]
    return word.lower() == first_word.lower()


def has_postscript(text: str, *, postscript_marker: str) -> bool:
    """The marker at any place, such as `P.S.` or `P. S.`."""
    letters = [re.escape(part) for part in postscript_marker.lower().rstrip(".").split(".")]
    end = r"\." if postscript_marker.endswith(".") else ""
    return bool(re.search(r"\.\s?".join(letters) + end, text.lower()))


def has_placeholders(text: str, *, num_placeholders: int) -> bool:
    return len(PLACEHOLDER.findall(text)) >= num_placeholders


def has_bullets(text: str, *, num_bullets: int) -> bool:
    return len(BULLET.findall(text)) == num_bullets


def has_title(text: str) -> bool:
    return any(title.strip() for title in TITLE.findall(text))


def is_constrained(text: str) -> bool:
    return any(answer in text for answer in ANSWERS)


def has_highlights(text: str, *, num_highlights: int) -> bool:
    """Parts in `*` or `**` that are not empty; a bold one counts, its halves do not."""
    bold = sum(bool(part.strip()) for part in BOLD.findall(text))
    plain = sum(bool(part.strip()) for part in HIGHLIGHT.findall(BOLD.sub("", text)))
    return bold + plain >= num_highlights


def has_sections(text: str, *, section_spliter: str, num_sections: int) -> bool:
    return len(re.findall(rf"{re.escape(section_spliter)}\s?\d+", text)) >= num_sections


def is_json(text: str) -> bool:
    """JSON, which may stand in a block of ```."""
    text = text.strip()
    if text.startswith("```"):
        text = text.removeprefix("```").removeprefix(text[3:7] if text[3:7].lower() == "json" else "")
    try:
        json.loads(text.removesuffix("```"))
    except (ValueError, RecursionError):
        return False
    return True


def repeats_prompt(text: str, *, prompt_to_repeat: str) -> bool:
    return text.strip().lower().startswith(prompt_to_repeat.strip().lower())


def has_two_responses(text: str) -> bool:
    """Two different texts with `******` between them."""
    parts = divided(text, r"\*{6}")
    return len(parts) == 2 and all(parts) and parts[0] != parts[1]


def is_capital(text: str) -> bool:
    return text.isupper() and is_in(text.lower(), "en")


def is_lowercase(text: str) -> bool:
    return text.islower() and is_in(text, "en")


def has_capital_words(text: str, *, capital_frequency: int, capital_relation: str) -> bool:
    return relates(count_capital_words(text), capital_relation, capital_frequency)


def ends_with(text: str, *, end_phrase: str) -> bool:
    return text.strip().strip('"').lower().endswith(end_phrase.strip().lower())


def is_quoted(text: str) -> bool:
    text = text.strip()
    return len(text) > 1 and text[0] == text[-1] == '"'


def has_no_comma(text: str) -> bool:
    return "," not in text


CHECKS: Mapping[str, Callable[..., bool]] = {
    "keywords:existence": has_keywords,
    "keywords:frequency": has_keyword_often,
    "keywords:forbidden_words": has_no_word_of,
    "keywords:letter_frequency": has_letter_often,
    "language:response_language": has_language,
    "length_constraints:number_words": has_words,
    "length_constraints:number_sentences": has_sentences,
    "length_constraints:number_paragraphs": has_divided_paragraphs,
    "length_constraints:nth_paragraph_first_word": has_first_word,
    "detectable_content:postscript": has_postscript,
    "detectable_content:number_placeholders": has_placeholders,
    "detectable_format:number_bullet_lists": has_bullets,
    "detectable_format:title": has_title,
    "detectable_format:constrained_response": is_constrained,
    "detectable_format:number_highlighted_sections": has_highlights,
    "detectable_format:multiple_sections": has_sections,
    "detectable_format:json_format": is_json,
    "combination:repeat_prompt": repeats_prompt,
    "combination:two_responses": has_two_responses,
    "change_case:english_capital": is_capital,
    "change_case:english_lowercase": is_lowercase,
    "change_case:capital_word_frequency": has_capital_words,
    "startend:end_checker": ends_with,
    "startend:quotation": is_quoted,
    "punctuation:no_comma": has_no_comma,
}


def check_of(instruction: str, arguments: Mapping[str, Any]) -> Callable[[str], bool]:
    """The check of an instruction with its arguments; ValueError for what there is none of."""
    if instruction not in CHECKS:
        raise ValueError(f"no instruction is called {instruction!r}")
    check = partial(CHECKS[instruction], **arguments)
    try:
        check("text")  # the names, types and values of the arguments show here
    except (TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"{instruction}: {error}") from None
    return check


def follows(text: str, check: Callable[[str], bool]) -> bool:
    """Return whether a text follows an instruction (strict)."""
    return bool(text.strip()) and check(text)


def follows_loosely(text: str, check: Callable[[str], bool]) -> bool:
    """Return whether a text does without its first line, its last line, or `*`, or any of these (loose)."""
    lines = text.split("\n")
    parts = [text, *("\n".join(part).strip() for part in (lines[1:], lines[:-1], lines[1:-1]))]
    return any(follows(version, check) for part in parts for version in (part, part.replace("*", "")))
