"""Ways to split text by llama.cpp's names: pieces as its rules have them, and the way back."""

import pytest

from shoestring.errors import TokenizerError
from shoestring.model.gguf.vocabulary.splits import (
    NAMES,
    SPLITS,
    _pieces,
    find_split,
    pre_tokenizer,
    split_name,
)
from shoestring.tokenizer.definition import byte_of_char, compile_definition

# Of each name, a text and its pieces, worked out from the rules: digits alone or in threes, marks, cases.
PIECES = {
    "default": ("a 1234,b", ["a", " ", "123", "4", ",", "b"]),
    "gpt-2": ("it's 1234,  b", ["it", "'s", " 1234", ",", " ", " b"]),
    "smollm": ("it's 12 b", ["it", "'s", " ", "1", "2", " b"]),
    "falcon": ("a`b` 1234", ["a", "`", "b", "`", " ", "123", "4"]),
    "llama-v3": ("It'S 1234\n\n b", ["It", "'S", " ", "123", "4", "\n\n", " b"]),
    "falcon3": ("a.b\r\n c", ["a", ".b", "\r\n", " c"]),
    "qwen2": ("IT'S 12\u0301", ["IT", "'S", " ", "1", "2", "\u0301"]),
    "qwen35": ("e\u0301a 12", ["e\u0301a", " ", "1", "2"]),
    "deepseek-coder": ("ab, 12 c一二\n", ["ab", ",", " ", "1", "2", " c", "一二", "\n"]),
    "deepseek-v3": ("ab1234一二 .x", ["ab", "123", "4", "一二", " .", "x"]),
    "kimi-k2": ("我们HTMLPage's 1234", ["我们", "HTMLPage's", " ", "123", "4"]),
    "gpt-4o": ("camelCase's/\n", ["camel", "Case's", "/\n"]),
    "tekken": ("camelCase's 12", ["camel", "Case", "'s", " ", "1", "2"]),
    "bailingmoe": ("a\n\n'Sb", ["a", "\n\n", "'S", "b"]),
    "seed-coder": ("a!\n b", ["a", "!", "\n", " b"]),
    "exaone-moe": ("to be or, 1", ["to be or", ",", " ", "1"]),
    "superbpe": ("at 1234567", ["at ", "1", "234", "567"]),
    "viking": ("on se. 12", ["on", " se", ".", " ", "1", "2"]),
    "tiny_aya": ("a 1234567", ["a", " ", "1", "234", "567"]),
    "youtu": ("한국어ab12！", ["한국어", "ab", "1", "2", "！"]),
    "minicpm5": ("a 1234", ["a", " ", "123", "4"]),
    "jais-2": ("a" + " " * 7 + "b", ["a", " " * 4, "  ", " b"]),
    "spark2_5": ("a!\n\nb", ["a", "!", "\n", "\n", "b"]),
    "ufakzeka": ("Ali'den", ["Ali", "'den"]),
    "laguna": ("a \nb", ["a", " ", "\n", "b"]),
}


def definition(name: str) -> dict:
    split = SPLITS[name]
    return {
        "pre_tokenizer": pre_tokenizer(split.patterns),
        "normalizer": {"type": "NFC"} if split.nfc else None,
        "model": {"type": "BPE", "vocab": {"ab": 0}, "merges": [], "ignore_merges": split.whole_words},
        "added_tokens": [],
    }


@pytest.mark.parametrize("name", PIECES)
def test_pieces_are_those_of_the_rules(name):
    text, expected = PIECES[name]
    pre = pre_tokenizer(SPLITS[NAMES[name]].patterns)
    empty = {"type": "BPE", "vocab": {}, "merges": []}
    backend = compile_definition(
        {"version": "1.0", "added_tokens": [], "model": empty, "pre_tokenizer": pre}, "t"
    )
    byte_of = byte_of_char()
    pieces = [piece for piece, _ in backend.pre_tokenizer.pre_tokenize_str(text)]
    assert [bytes(byte_of[char] for char in piece).decode() for piece in pieces] == expected


@pytest.mark.parametrize("name", SPLITS)
def test_each_way_is_told_from_the_others(name):
    assert split_name(definition(name), "t") == name


def test_every_name_has_an_entry_and_unknown_names_have_none():
    assert set(NAMES.values()) == set(SPLITS)
    assert find_split(None) == find_split("") == find_split("default")
    assert find_split("no-such") is find_split(7) is None
    for name in ("starcoder", "refact", "dbrx", "exaone", "olmo", "megrez", "hunyuan", "deepseek-r1-qwen"):
        assert find_split(name) is not None


def test_another_way_is_refused():
    for pre in (None, {"type": "Whitespace"}, pre_tokenizer((r"\p{L}+",))):
        with pytest.raises(TokenizerError, match="in a way that"):
            split_name({"pre_tokenizer": pre}, "t")


def test_gpt2s_own_pre_tokenizer_has_a_name():
    gpt2 = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    assert split_name({"pre_tokenizer": gpt2}, "t") == "gpt-2"
    digits = {"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": True}, gpt2]}
    assert split_name({"pre_tokenizer": digits}, "t") == "smollm"


def test_whole_words_matter_only_where_merges_do_not_make_them():
    merged = definition("llama-bpe")
    merged["model"] |= {"vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"], "ignore_merges": False}
    assert split_name(merged, "t") == "smaug-bpe"
    tekken = definition("tekken")
    tekken["model"] |= {"vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"], "ignore_merges": False}
    assert split_name(tekken, "t") == "tekken"
    tekken["model"] |= {"merges": []}
    with pytest.raises(TokenizerError, match="has ignore_merges = false"):
        split_name(tekken, "t")


def test_the_probe_is_split_by_every_way():
    assert len({str(_pieces(pre_tokenizer(s.patterns), "t")) for s in SPLITS.values()}) == len(
        {s.patterns for s in SPLITS.values()}
    )
