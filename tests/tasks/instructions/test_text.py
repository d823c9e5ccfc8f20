"""Words, sentences and paragraphs are counted as a reader counts them, in linear time."""

import time

import pytest

from shoestring.tasks.instructions.text import (
    count_capital_words,
    count_sentences,
    count_words,
    divided,
    paragraphs,
)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", 0),
        ("One.", 1),
        ("No mark at the end", 1),
        ("One. Two! Three?", 3),
        ("Dr. Smith met Mr. Jones at 3.15 p.m. in St. Louis.", 1),
        ("He lives in the U.S. with J. R. Smith. She does not.", 2),
        ("It costs 3.50 dollars. I paid.", 2),
        ('"Really?" she asked. "Yes!" He left.', 3),
        ("Wait... what? Yes.", 2),
        ("A list:\n\n- one thing\n- another thing\n\nThe end.", 3),
        ("Was ist das? Das ist gut.", 2),
        ("这是一句。这是另一句！", 2),
        ("See e.g. Smith et al. for more.", 1),
        ("* * *", 0),
    ],
)
def test_sentences(text, count):
    assert count_sentences(text) == count


def test_words_and_capital_words():
    assert count_words("It's well-known: 3 words") == 6
    assert count_capital_words("NASA and the U.S. sent I, Robot to MARS; Mars ok. A-B") == 5
    assert count_capital_words("none here") == 0


def test_paragraphs():
    assert paragraphs("a\n\nb\n \n\n\nc\n") == ["a", "b", "c"]
    assert divided("***\na\n***\nb\n***", r"\s?\*\*\*\s?") == ["a", "b"]
    assert divided("a ******  ****** b", r"\*{6}") == ["a", "", "b"]


@pytest.mark.parametrize(
    "unit", [".", ". ", "!", "\n", " ", "A. ", "a.\n\n", "A-", "*", "'", "\n \n", "Dr. ", "<<", "["]
)
def test_a_million_characters_take_seconds_at_most(unit):
    text = unit * (1_000_000 // len(unit))
    start = time.process_time()
    count_sentences(text), count_words(text), count_capital_words(text), paragraphs(text)
    assert time.process_time() - start < 5
