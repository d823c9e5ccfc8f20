r"""Patterns: what is found is found by every reader, and `\d` in a regex is an ASCII digit."""

import json
import re

import pytest

from shoestring.engine.constrain.grammars import GrammarCache
from shoestring.engine.constrain.pattern import ascii_classes, name_pattern, schema_pattern, whole_regex
from shoestring.engine.request import StructuredOutputsParams
from shoestring.errors import ConfigError
from shoestring.tokenizer.bpe import Tokenizer

CHARACTERS = [*map(chr, range(0x180)), *"\u0661\uff11\u2028\u2029\ufeff\u3000\u212a😀"]


@pytest.fixture(scope="module")
def cache():
    tokenizer = Tokenizer.train(["abc 0123456789"], 320)
    cache = GrammarCache(tokenizer, tokenizer.vocab_size, time_limit_s=5.0)
    yield cache
    cache.close()


def texts(cache, characters=CHARACTERS, **spec):
    """Those of the characters that a grammar takes as a whole text; in a schema as a JSON string."""
    grammar, result = cache.compile(StructuredOutputsParams(**spec)), []
    for char in characters:
        text = json.dumps(char, ensure_ascii=False) if "json" in spec else char
        matcher = grammar.matcher()
        if all(matcher.consume(i) for i in cache.tokenizer.encode(text)) and matcher.is_accepting:
            result.append(char)
    return result


PATTERNS = [
    r"^[\x00-\x1f]$",
    r"^.$",
    '^[^"]$',
    r"^[^\\]$",
    "^[^a-z]$",
    r"^\s$",
    r"^\d$",
    r"^\D$",
    r"^\w$",
    r"^\W$",
    r"^\S$",
    r"^[\W\d]$",
    r"^[^\W_]$",
    r"^[^\D]$",
    r"^[^\s]$",
    "^(a|\x01)$",
    r"^[\x7f~]$",
    r"^[\]\-a]$",
    "^[[a]$",
    "^[a&&b]$",
    "^#$",
    r"^[\b]$",
    r"^\u0041$",
]


@pytest.mark.filterwarnings("ignore:Possible:FutureWarning")
@pytest.mark.parametrize("pattern", PATTERNS)
def test_what_is_written_is_found_by_python_too(cache, pattern):
    found = texts(cache, json={"type": "string", "pattern": pattern})
    assert found
    assert [char for char in found if not re.search(pattern, char)] == []
    assert not {*"\x00\x01\x0b\x1f\x7f"} & {*found}


@pytest.mark.parametrize("pattern", ["^a\x01b$", r"^\x01$", r"\v", r"^\cA$", "^[\x00-\x07]{2}$", "\x7f"])
def test_a_pattern_that_needs_what_cannot_be_written_is_refused(cache, pattern):
    with pytest.raises(ConfigError, match=r"empty|nothing can match"):
        cache.compile(StructuredOutputsParams(json={"type": "string", "pattern": pattern}))


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("[]a]", "empty class"),
        (r"\Aa", "escape"),
        ("a++b", "possessive"),
        ("(?x) a b", "group"),
        ("a{,2}", "begins no count"),
        (r"\ud800", "lone surrogate"),
        ("[z-a]", "backwards"),
        ("[a", "without ']'"),
        ("a\\", "ends with a backslash"),
        (r"[\d-z]", "from character to character"),
    ],
)
def test_what_readers_take_differently_is_refused(pattern, words):
    with pytest.raises(ConfigError, match=re.escape(words)):
        schema_pattern(pattern)


@pytest.mark.parametrize(
    ("regex", "members"),
    [
        (r"\d", "0123456789"),
        (r"[\d.]", "0123456789."),
        (r"[^\D]", "0123456789"),
        (r"[\D&&[0-9x]]", "x"),
        (r"[0-9a\D--\W--_]", None),
        (r"\s", "\t\n\x0b\x0c\r "),
        (r"[]\d]", "0123456789]"),
        (r"\\d", ""),
    ],
)
def test_classes_of_a_regex_are_ascii(cache, regex, members):
    found = texts(cache, regex=regex)
    assert all(char.isascii() for char in found)
    assert members is None or {*found} == {*members}


def test_complements_of_a_regex_take_the_rest(cache):
    assert {"\u0661", "\uff11"} <= {*texts(cache, regex=r"\D")}
    assert {"é", "ª"} <= {*texts(cache, regex=r"\W")}
    assert "\u3000" in texts(cache, regex=r"\S")


def test_a_regex_without_classes_stays_as_it_is():
    for regex in (r"[a-z]+\.(?i)x{2}", r"[^\]\[]\[\\", r"[[:alpha:]]", r"\p{L}\b"):
        assert ascii_classes(regex) == regex


def test_a_pattern_for_names_is_as_wide_as_needed():
    assert name_pattern("^a$", False) == "^a$"
    assert name_pattern("^a$", True) == r"^a\x{a}?$"  # Python's $ is also before a line break
    assert name_pattern("^[a-z]$", {"type": "null"}) == "^[a-z]$"
    with pytest.raises(ConfigError, match="by different readers"):
        name_pattern(r"^\w$", {"type": "null"})


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        ("^a$", ["a"], ["ab", "ba", ""]),
        ("a", ["a", "xay"], ["", "b"]),
        ("^a|b$", ["a", "ax", "b", "xb"], ["xa", "bx"]),
        ("^(a|b)$", ["a", "b"], ["ab"]),
        ("[|^$]", ["|", "x$"], ["x"]),
        ("", ["", "a\n"], []),
    ],
)
def test_the_regex_of_whole_texts(cache, pattern, yes, no):
    regex = whole_regex(schema_pattern(pattern))
    assert texts(cache, [*yes, *no], regex=regex) == yes
    with pytest.raises(ConfigError, match="between other parts"):
        whole_regex("(^a)")
