"""The code's English: docstrings begin with a verb or a noun, and names say what a value is."""

import sys
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))

from english import QUESTION_WORDS, bindings, docstrings, first_word, is_participle

MOST_PER_THOUSAND = 2.0


def test_no_docstring_begins_with_a_question_word(package):
    wrong = [
        f"{source}:{line}: {text.splitlines()[0]}"
        for source in package
        for line, text in docstrings(source.tree)
        if first_word(text) in QUESTION_WORDS
    ]
    assert not wrong


def test_names_are_nouns(package):
    names = [name for source in package for name in bindings(source.tree)]
    participles = Counter(name for name in names if is_participle(name))
    assert participles.total() / len(names) * 1000 < MOST_PER_THOUSAND, participles.most_common(30)
