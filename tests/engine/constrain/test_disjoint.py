"""oneOf: taken when no value can satisfy two of its schemas, else refused with advice."""

import pytest

from shoestring.engine.constrain.disjoint import are_exclusive
from shoestring.engine.constrain.grammars import GrammarCache
from shoestring.engine.request import StructuredOutputsParams
from shoestring.errors import ConfigError
from shoestring.tokenizer.bpe import Tokenizer

DEFINITIONS = {
    "cat": {"type": "object", "properties": {"kind": {"const": "cat"}}, "required": ["kind"]},
    "dog": {"type": "object", "properties": {"kind": {"enum": ["dog", "puppy"]}}, "required": ["kind"]},
    "number": {"type": "number"},
}
CAT, DOG, NUMBER = ({"$ref": f"#/$defs/{name}"} for name in DEFINITIONS)


def target(reference):
    return DEFINITIONS[reference.rpartition("/")[2]]


@pytest.mark.parametrize(
    ("schemas", "exclusive"),
    [
        ([CAT, DOG, NUMBER], True),
        ([CAT, {"type": "object"}], False),
        ([NUMBER, {"type": "integer"}], False),
        ([NUMBER, {"type": ["string", "null"]}], True),
        ([{"const": 1}, {"const": 1.0}], False),
        ([{"const": 1}, {"const": True}], True),
        ([{"enum": ["a", "b"]}, {"enum": ["c"]}, {"type": "null"}], True),
        ([{"enum": ["a", "b"]}, {"enum": ["b"]}], False),
        ([{"type": "number", "maximum": 3}, {"type": "number", "exclusiveMinimum": 3}], True),
        ([{"type": "number", "maximum": 3}, {"type": "number", "minimum": 3}], False),
        ([{"maximum": 3}, {"minimum": 5}], False),  # a text satisfies both
        ([True, False], True),
        ([True, NUMBER], False),
        ([{"anyOf": [CAT, NUMBER]}, {"allOf": [DOG, {}]}], True),
    ],
)
def test_exclusive(schemas, exclusive):
    assert are_exclusive(schemas, target) == exclusive


def test_one_of_in_a_grammar():
    tokenizer = Tokenizer.train(["abc 0123456789"], 320)
    cache = GrammarCache(tokenizer, tokenizer.vocab_size, time_limit_s=5.0)
    try:
        schema = {"oneOf": [CAT, DOG], "$defs": DEFINITIONS}
        grammar = cache.compile(StructuredOutputsParams(json=schema))
        for text, is_allowed in (('{"kind":"puppy"}', True), ('{"kind":"cow"}', False)):
            matcher = grammar.matcher()
            consumed = all(matcher.consume(token_id) for token_id in tokenizer.encode(text))
            assert (consumed and matcher.is_accepting) == is_allowed
        with pytest.raises(ConfigError, match=r"write anyOf, or give each object .* a const of its own"):
            cache.compile(StructuredOutputsParams(json={"oneOf": [{"type": "integer"}, {"minimum": 3}]}))
    finally:
        cache.close()
