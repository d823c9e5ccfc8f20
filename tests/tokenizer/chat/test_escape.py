import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoestring.errors import TokenizerError
from shoestring.tokenizer.chat.escape import STAND_INS, Escaper, Spellings

SPECIALS = ["<|end|>", "<|endoftext|>", "<think>", "</think>", "[INST]", "<|e"]
ALL = Spellings(SPECIALS)
letters = st.text("<|end>[INST]thk/ \n\ue000", max_size=25)


def escaper_for(*inputs: object, edges: bool = True) -> Escaper:
    others = [s for s in SPECIALS if "think" not in s]
    return Escaper(ALL, Spellings(others, ["<think>", "</think>"]), list(inputs), edges=edges)


@given(st.lists(letters, min_size=1, max_size=4), st.sampled_from(["", *"<>|["]))
def test_no_join_of_escaped_texts_spells_a_special_token(texts: list[str], glue: str):
    escaper = escaper_for(texts)
    safe = [escaper.escape(text) for text in texts]
    for joined in (glue.join(safe), glue.join(s.strip() for s in safe), "<|" + safe[0] + "|>"):
        assert not [s for s in SPECIALS if s != "<|e" and s in joined.lower()]
    assert escaper.unescape("".join(safe)) == "".join(texts)
    assert [len(s) for s in safe] == [len(t) for t in texts]


def test_ordinary_text_is_left_alone():
    escaper = escaper_for(edges=False)
    for text in ("Hello, how are you?", "a < b", "def f(x):\n    return x", "x[0]", "end", "<|"):
        assert escaper.escape(text) == text
    assert escaper.escape({"a": [1, 2.5, None, True]}) == {"a": [1, 2.5, None, True]}
    assert escaper.stand_ins == {}


def test_thinking_tags_stay_in_an_assistant_s_content_only():
    escaper = escaper_for()
    text = "<think>a</think>b"
    assert escaper.escape_message({"role": "assistant", "content": text})["content"] == text
    assert escaper.escape_message({"role": "user", "content": text})["content"] != text
    assert escaper.escape_message({"role": "assistant", "content": "x", "name": text})["name"] != text


def test_a_value_that_is_no_json_is_refused():
    with pytest.raises(TokenizerError, match="contains a object"):
        escaper_for().escape(object())


def test_a_text_with_every_stand_in_is_refused():
    everything = "".join(chr(code) for codes in STAND_INS for code in codes)
    with pytest.raises(TokenizerError, match="every rare character"):
        escaper_for(everything)


def test_stand_ins_are_printed_as_they_are():
    chars = [chr(code) for codes in STAND_INS for code in codes]
    assert all(char.isprintable() and not char.isspace() for char in chars)
    assert all(char.lower() == char.upper() == char for char in chars)
