import re

from hypothesis import given
from hypothesis import strategies as st

from shoestring.tokenizer import special
from shoestring.tokenizer.special import any_of


def test_spellings_are_deepseek_s_own_characters():
    bars = [token for token in special.SPECIAL_TOKENS if token not in special.THINK_TAGS]
    assert all(token.startswith("<\uff5c") and token.endswith("\uff5c>") for token in bars)
    assert special.BOS == "<\uff5cbegin\u2581of\u2581sentence\uff5c>"
    assert not any("|" in token or " " in token or "_" in token for token in special.SPECIAL_TOKENS)


def test_no_spelling_twice():
    assert len(set(special.SPECIAL_TOKENS)) == len(special.SPECIAL_TOKENS)


@given(
    st.lists(st.text("ab<|.", min_size=1, max_size=6), min_size=1, max_size=8), st.text("ab<|.", max_size=20)
)
def test_any_of_finds_what_a_plain_alternation_finds(words: list[str], text: str):
    plain = "|".join(map(re.escape, sorted(words, key=len, reverse=True)))
    assert [m.span() for m in re.finditer(any_of(words), text)] == [
        m.span() for m in re.finditer(plain, text)
    ]


def test_nothing_to_find():
    assert re.search(any_of([]), "abc") is None
