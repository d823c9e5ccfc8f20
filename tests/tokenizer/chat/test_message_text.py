"""A MessageText answers as its original text does, and no method loses which characters are from messages."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoestring.tokenizer.chat.escape import Escaper
from shoestring.tokenizer.chat.message_text import (
    MessageText,
    as_message_text,
    has_stand_ins,
    original,
    use_stand_ins,
)

ALPHABET = "<|aAbB> \n\tßſé."
pieces = st.lists(st.tuples(st.booleans(), st.text(ALPHABET, max_size=6)), max_size=4)
texts = st.text(ALPHABET, max_size=3)


def message_text(parts: list[tuple[bool, str]]) -> MessageText:
    """A text of parts that are a message's (True) or the template's."""
    escaper = Escaper(["<|aAbB> \n\tßſé."], [])
    use_stand_ins(escaper.stand_ins)
    return MessageText("".join(escaper.escape(text) if is_message else text for is_message, text in parts))


METHODS = [
    *((name, 0) for name in ("upper", "lower", "title", "capitalize", "swapcase", "casefold", "isupper")),
    *((name, 0) for name in ("islower", "isspace", "isalpha", "isascii", "isdigit", "split", "rsplit")),
    *((name, 0) for name in ("strip", "lstrip", "rstrip", "splitlines", "__len__", "__repr__", "__hash__")),
    *((name, 1) for name in ("strip", "lstrip", "rstrip", "removeprefix", "removesuffix", "find", "rfind")),
    *((name, 1) for name in ("count", "startswith", "endswith", "__contains__", "__add__", "__eq__")),
    *((name, 1) for name in ("__ne__", "__lt__", "__ge__")),
    ("replace", 2),
]  # fmt: skip


@pytest.mark.parametrize(("name", "count"), METHODS)
@given(parts=pieces, arguments=st.tuples(texts, texts), is_message=st.booleans())
def test_methods_give_what_they_give_for_the_original(name, count, parts, arguments, is_message):
    text = message_text(parts)
    own = [message_text([(is_message, argument)]) for argument in arguments][:count]
    expected = getattr("".join(part for _, part in parts), name)(*arguments[:count])
    result = getattr(text, name)(*own)
    assert original(result) == expected
    assert result == expected


@given(parts=pieces, sep=st.text(ALPHABET, min_size=1, max_size=2), count=st.integers(-1, 3))
def test_splits_give_what_they_give_for_the_original(parts, sep, count):
    text = message_text(parts)
    plain = original(text)
    for name in ("split", "rsplit"):
        assert original(getattr(text, name)(sep, count)) == getattr(plain, name)(sep, count)
        assert original(getattr(text, name)(None, count)) == getattr(plain, name)(None, count)
    for name in ("partition", "rpartition"):
        assert original(getattr(text, name)(sep)) == getattr(plain, name)(sep)
        assert str.join("", getattr(text, name)(sep)) == str.join("", [text])
    assert str.join("", text.splitlines(True)) == str.join("", [text])
    assert str.join(sep, map(str, text.split(sep))).count("") == len(text) + 1


@given(parts=pieces, places=st.tuples(st.integers(-9, 9), st.integers(-9, 9)))
def test_every_part_knows_its_source(parts, places):
    text = message_text(parts)
    sources = [has_stand_ins(char) for char in text]
    assert sources == [is_message for is_message, part in parts for _ in part]
    begin, end = places
    assert [has_stand_ins(char) for char in text[begin:end]] == sources[begin:end]
    head, middle, tail = text.partition("a")
    assert [has_stand_ins(char) for char in head + middle + tail] == sources
    for changed in (text.upper(), text.lower(), text.title()):
        if len(changed) == len(text):
            assert all(new or not old for old, new in zip(sources, map(has_stand_ins, changed), strict=True))


def test_separators_and_replacements_keep_their_own_source():
    text = message_text([(True, "xab"), (False, "b")])
    assert [has_stand_ins(part) for part in text.split("ab")] == [False, False]
    assert [has_stand_ins(c) for c in text.replace("b", "<")] == [False, True, False, False]


def test_objects_are_printed_as_their_originals_and_found_by_them():
    text = message_text([(True, "a'\n<")])
    value = as_message_text({str.join("", [text]): [str.join("", [text]), 1]})
    assert original(repr(value)) == repr({"a'\n<": ["a'\n<", 1]})
    assert value["a'\n<"][0] == "a'\n<"
    assert has_stand_ins(value)
    assert not has_stand_ins(original(value))
