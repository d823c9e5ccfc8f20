import pytest

from shoestring.serve.backends.errors import RequestError
from shoestring.serve.translate.entries import language_pair, read_dictionary, read_entries, write_tsv


def test_entries_are_read_and_written():
    assert read_entries("a\tb\n\n c \t d \r\n", "tsv") == {"a": "b", "c": "d"}
    assert read_entries('x,y,en,de\n"a""b","c,d"', "csv") == {"x": "y", 'a"b': "c,d"}
    assert write_tsv({"a": "b", "c": "d"}) == "a\tb\nc\td"


@pytest.mark.parametrize(
    ("text", "form", "words"),
    [
        ("a", "tsv", "Entry 1"),
        ("a\tb\tc", "tsv", "Entry 1"),
        ("a\tb\na\tc", "tsv", "second time"),
        ("a\t\x07", "tsv", "printable"),
        ("a\t" + "b" * 1025, "tsv", "too long"),
        ("", "tsv", "none"),
        ("a\tb", "xml", "entries_format"),
        ("a" * (10 << 20) + "\tb", "tsv", "longer"),
    ],
)
def test_a_wrong_entry_is_named(text, form, words):
    with pytest.raises(RequestError, match=words):
        read_entries(text, form)


def test_a_dictionary_has_two_languages():
    assert language_pair("en-us", "De") == ("EN", "DE")
    for pair in (("EN", "EN-GB"), ("EN", "XX")):
        with pytest.raises(RequestError):
            language_pair(*pair)
    with pytest.raises(RequestError, match="entries"):
        read_dictionary({"source_lang": "EN", "target_lang": "DE"})
