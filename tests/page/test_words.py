"""The catalogue: every word that the page asks for is there, in every language, with the same places."""

import re
from pathlib import Path

import pytest

UI = Path(__file__).parents[2] / "ui"
LINES = [
    (file.stem, *line.split("|"))
    for file in sorted((UI / "words").glob("*.txt"))
    for line in file.read_text().splitlines()
    if line
]
CODE = "\n".join(path.read_text() for path in (UI / "src").rglob("*") if path.suffix in (".svelte", ".ts"))


@pytest.mark.parametrize("line", LINES, ids=lambda line: line[1])
def test_a_word_is_in_four_languages_with_the_same_places(line):
    _, _, *texts = line
    assert len(texts) == 4
    assert all(text.strip() == text != "" for text in texts)
    assert len({tuple(sorted(re.findall(r"\{\d\}", text))) for text in texts}) == 1


def test_names_are_unique_and_every_word_that_is_asked_for_is_there():
    names = [name for _, name, *_ in LINES]
    assert len(names) == len(set(names))
    assert set(re.findall(r'\bword\(\s*"(\w+)"', CODE)) - set(names) == set()


def test_no_word_of_the_account_the_admins_or_the_api_is_left_over():
    texts = set(re.findall(r'["\'](\w+)["\']', CODE))
    prefixes = tuple(re.findall(r"word\(`(\w+_)\$\{", CODE))
    own = [name for area, name, *_ in LINES if area in ("account", "admin", "api")]
    assert [name for name in own if name not in texts and not name.startswith(prefixes)] == []
