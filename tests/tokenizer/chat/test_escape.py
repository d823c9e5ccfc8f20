import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoestring.errors import TokenizerError
from shoestring.tokenizer.chat.escape import STAND_INS, Escaper, cases, characters_of

SPECIALS = ["<|end|>", "<|endoftext|>", "<think>", "</think>", "[INST]", "<|e", "<ß a>"]
letters = st.text("<|end>[INST]thk/ \n\ue000ſßKé", max_size=25)


@given(st.lists(letters, min_size=1, max_size=4))
def test_nothing_of_a_special_token_is_left_in_a_text_and_it_comes_back(texts: list[str]):
    escaper = Escaper(SPECIALS, texts)
    safe = [escaper.escape(text) for text in texts]
    changed = "".join(form(text) for text in safe for form in (str.upper, str.lower, str.title, str.swapcase))
    assert not set("".join([*safe, changed])) & set("".join(SPECIALS))
    assert escaper.unescape("".join(safe)) == "".join(texts)
    assert [len(s) for s in safe] == [len(t) for t in texts]


def test_a_change_of_case_makes_no_character_of_a_special_token():
    characters = set(characters_of(frozenset(SPECIALS)))
    assert {"e", "E", "ſ", "K", "S", "s"} <= characters
    for char, forms in cases().items():
        assert char in characters or not forms & characters
    assert max(map(ord, cases())) < 0x1FFFF - 1000  # all that Python's Unicode has


def test_other_characters_and_values_are_left_alone():
    escaper = Escaper(["<|x|>"], [])
    assert escaper.escape("Hello, how are you?") == "Hello, how are you?"
    assert escaper.escape({"a": [1, 2.5, None, True]}) == {"a": [1, 2.5, None, True]}
    assert escaper.escape({"x": "x"}) != {"x": "x"}


def test_thinking_tags_are_marked_in_an_assistant_s_content_only():
    text = "<think>a</think>b</think"
    escaper = Escaper(SPECIALS, text)
    key = escaper.escape("content")
    for role, name, count in (("assistant", "content", 1), ("user", "content", 0), ("assistant", "name", 0)):
        message = escaper.escape_message({"role": role, "content": "x", name: text})
        safe = message[escaper.escape(name)]
        assert [safe.count(tag) for tag in escaper.tags] == [count] * 2
        assert escaper.unescape(safe) == text
        assert message[escaper.escape("role")] == role
        assert list(map(escaper.unescape, message))[:2] == ["role", "content"]
        assert key in message


def test_a_value_that_is_no_json_is_refused():
    with pytest.raises(TokenizerError, match="contains a object"):
        Escaper(SPECIALS, []).escape(object())


def test_a_text_with_every_stand_in_is_refused():
    everything = "".join(chr(code) for codes in STAND_INS for code in codes)
    with pytest.raises(TokenizerError, match="every rare character"):
        Escaper(SPECIALS, everything)


def test_stand_ins_are_printed_as_they_are():
    chars = [chr(code) for codes in STAND_INS for code in codes]
    assert all(char.isprintable() and not char.isspace() for char in chars)
    assert all(char.lower() == char.upper() == char for char in chars)
