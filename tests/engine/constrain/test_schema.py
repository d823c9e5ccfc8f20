import json
import random

import jsonschema
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from shoestring.engine.constrain.grammars import GrammarCache, unpack_mask
from shoestring.engine.constrain.schema import MAX_SCHEMA_BYTES, MAX_VALUES, schema_text
from shoestring.engine.request import StructuredOutputsParams
from shoestring.errors import ConfigError
from shoestring.tokenizer.bpe import Tokenizer

SOFT_STEPS, HARD_STEPS = 40, 2000
CLOSERS = '}]":,0123456789ntfx'


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train(['{"name": "Ada", "age": 36, "list": [1.5, true, null], "x": -1e5}\n' * 50], 400)


@pytest.fixture(scope="module")
def cache(tokenizer):
    cache = GrammarCache(tokenizer, tokenizer.vocab_size, time_limit_s=5.0)
    yield cache
    cache.close()


def write(cache, schema, seed):
    """A document of `schema` by random allowed tokens, brought to its end after some time."""
    tokenizer, chance = cache.tokenizer, random.Random(seed)
    matcher, ids = cache.compile(StructuredOutputsParams(json=schema)).matcher(), []
    closers = {tokenizer.encode(char)[0] for char in CLOSERS}
    for step in range(HARD_STEPS):
        allowed = np.flatnonzero(unpack_mask(matcher.mask(), cache.vocab_size)).tolist()
        if step > SOFT_STEPS:
            allowed = (
                [i for i in allowed if i == tokenizer.eos_id]
                or [i for i in allowed if i in closers]
                or allowed
            )
        token_id = chance.choice(allowed)
        assert matcher.consume(token_id)
        if token_id == tokenizer.eos_id:
            return tokenizer.decode(ids)
        ids.append(token_id)
    raise AssertionError(f"no end: {tokenizer.decode(ids)[:200]}")


def accepts(cache, schema, text):
    matcher = cache.compile(StructuredOutputsParams(json=schema)).matcher()
    return all(matcher.consume(i) for i in cache.tokenizer.encode(text)) and matcher.is_accepting


whole = st.integers(-500, 500)
eighths = whole.map(lambda n: n / 8)  # exact, so that the validator's rounding is not what is tested
values = st.recursive(
    st.none() | st.booleans() | whole | eighths | st.text('aé"\\/\n😀', max_size=4),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.text("ab\n", max_size=2), inner, max_size=2)
    ),
    max_leaves=4,
)
names = st.sampled_from(["a", "b", "größe", "with space", 'q"', "back\\slash", "line\n", "~/", ""])


@st.composite
def bounded(draw, kind, numbers):
    """integer or number, with bounds that leave something."""
    schema = {"type": kind}
    low = draw(st.none() | numbers)
    if low is not None:
        schema[draw(st.sampled_from(["minimum", "exclusiveMinimum"]))] = low
    if draw(st.booleans()):
        schema[draw(st.sampled_from(["maximum", "exclusiveMaximum"]))] = (low or 0) + draw(
            st.integers(30, 300)
        )
    if kind == "integer" and draw(st.booleans()):
        schema["multipleOf"] = draw(st.integers(1, 12))
    return schema


@st.composite
def objects(draw, inner):
    properties = draw(st.dictionaries(names, inner, max_size=3))
    required = draw(st.lists(st.sampled_from(sorted(properties)), unique=True)) if properties else []
    schema = {"type": "object", "properties": properties, "required": required}
    extra = draw(st.sampled_from(["none", "closed", "schema", "pattern", "few"]))
    if extra == "closed":
        schema["additionalProperties"] = False
    if extra == "schema":
        schema["additionalProperties"] = draw(inner)
    if extra == "pattern":
        schema |= {"patternProperties": {"^x_[a-z]*$": draw(inner)}, "additionalProperties": False}
    if extra == "few":
        schema |= {"minProperties": draw(st.integers(0, 1))}
    return schema


@st.composite
def arrays(draw, inner):
    schema = {"type": "array", "items": draw(inner | st.just(False))}
    if draw(st.booleans()):
        schema["prefixItems"] = draw(st.lists(inner, min_size=1, max_size=2))
    if schema["items"] is not False and draw(st.booleans()):
        schema["minItems"] = draw(st.integers(0, 3))
        schema["maxItems"] = schema["minItems"] + draw(st.integers(0, 2))
    return schema


strings = st.sampled_from(
    [
        {},
        {"minLength": 2, "maxLength": 4},
        {"pattern": "^[a-f]{2,3}$"},
        {"pattern": "x"},
        {"pattern": "^(ab|c)*$", "maxLength": 5},
        {"format": "ipv4"},
        {"format": "uuid"},
        {"format": "date"},
    ]
).map(lambda rest: {"type": "string", **rest})
simple = (
    bounded("integer", whole)
    | bounded("number", eighths)
    | strings
    | st.sampled_from([{"type": "null"}, {"type": "boolean"}, {}, {"type": ["string", "null", "integer"]}])
    | values.map(lambda value: {"const": value})
    | st.lists(values, min_size=1, max_size=3).map(lambda options: {"enum": options})
    | st.sampled_from([{"$ref": "#/$defs/tree"}, {"$ref": "#/$defs/leaf"}])
)
schemas = st.recursive(
    simple,
    lambda inner: (
        objects(inner)
        | arrays(inner)
        | st.lists(inner, min_size=1, max_size=3).map(lambda options: {"anyOf": options})
        | inner.map(lambda one: {"allOf": [one, {"type": ["object", "array", "integer", "string"]}]})
        | inner.map(lambda one: {"oneOf": [{"type": "array", "items": one}, {"type": "string"}]})
    ),
    max_leaves=5,
)


@settings(max_examples=100)
@given(schema=schemas, leaf=simple, seed=st.integers(0, 2**32))
def test_every_document_is_valid(cache, schema, leaf, seed):
    tree = {"properties": {"value": {"type": "integer"}, "next": {"$ref": "#/$defs/tree"}}, "type": "object"}
    assume(leaf != {"$ref": "#/$defs/leaf"})
    schema = {**schema, "$defs": {"leaf": leaf, "tree": {**tree, "additionalProperties": False}}}
    try:
        cache.compile(StructuredOutputsParams(json=schema))
    except ConfigError:
        assume(False)  # an intersection that nothing satisfies, say
    text = write(cache, schema, seed)
    jsonschema.Draft202012Validator(schema).validate(json.loads(text))


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        ({"type": "integer", "minimum": 5, "exclusiveMaximum": 12}, ["5", "11"], ["4", "12", "5.0"]),
        ({"type": "number", "multipleOf": 0.5}, ["1.5", "2"], ["1.25"]),
        ({"type": "string", "minLength": 2, "maxLength": 3}, ['"ab"', '"é😀é"'], ['"a"', '"abcd"']),
        ({"type": "string", "pattern": "b+"}, ['"abba"'], ['"a"']),
        ({"type": "string", "format": "date"}, ['"2024-02-29"'], ['"2023-02-30"', '"today"']),
        ({"enum": [1, "a", None, {"k": [1]}]}, ["1", '"a"', "null", '{"k":[1]}'], ["2", '{"k":[2]}']),
        ({"const": 'say "é"\n'}, ['"say \\"é\\"\\n"'], ['"say"']),
        ({"prefixItems": [{"const": 1}], "type": "array", "items": {"const": 2}}, ["[1,2,2]", "[]"], ["[2]"]),
        ({"type": "array", "minItems": 1, "maxItems": 2}, ["[1]", "[{},null]"], ["[]", "[1,2,3]"]),
        ({"type": "object", "maxProperties": 1}, ["{}", '{"a":1}'], ['{"a":1,"b":2}']),
        ({"type": "object", "minProperties": 1}, ['{"a":1}'], ["{}"]),
        ({"oneOf": [{"type": "integer"}, {"type": "string"}]}, ["1", '"a"'], ["null"]),
        ({"type": "array", "uniqueItems": False}, ["[1,1]"], ["1"]),
        ({"$defs": {"a/b": {"const": 1}}, "$ref": "#/$defs/a~1b"}, ["1"], ["2"]),
        ({"type": "object", "required": ["a"], "minProperties": 1}, ['{"a":1}'], ['{"b":1}']),
        (True, ["1", "{}"], ["", "{"]),
    ],
)
def test_keywords_that_are_honored(cache, schema, good, bad):
    for text in (*good, *bad):
        assert accepts(cache, json.dumps(schema), text) == (text in good), text


def test_a_name_has_one_spelling(cache):
    """Else a second spelling of "a" would escape a's own schema, and readers would take the second value."""
    open_ended = {"properties": {"a": {"type": "integer"}}, "additionalProperties": {"type": "string"}}
    schema = {"type": "object", **open_ended}
    assert accepts(cache, schema, '{"a":1,"b":"x"}')
    assert not accepts(cache, schema, '{"\\u0061":"x"}')
    assert not accepts(cache, schema, '{"a":1,"a":"x"}')
    control = {"type": "object", "properties": {"\x1f\b": {"type": "integer"}}, "additionalProperties": True}
    assert not accepts(cache, control, '{"\\u001F\\u0008":"x"}')


def test_annotations_are_left_out_and_nothing_else():
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "person",
        "title": "Person",
        "type": "object",
        "properties": {"title": {"type": "string", "description": "The title.", "default": "Dr"}},
    }
    left = json.loads(schema_text(schema, "the schema"))
    del left["x-guidance"]
    assert left == {"type": "object", "properties": {"title": {"type": "string"}}}


UNSUPPORTED = """not if then else contains minContains uniqueItems propertyNames dependentRequired
    dependentSchemas unevaluatedProperties unevaluatedItems additionalItems $anchor $dynamicRef $vocabulary
    nullable discriminator x-guidance requred \ud800"""


@pytest.mark.parametrize("keyword", UNSUPPORTED.split())
def test_a_keyword_that_is_not_honored_is_refused_by_name(keyword):
    with pytest.raises(ConfigError) as refusal:
        schema_text({"properties": {"a": {keyword: True}}}, "the schema")
    assert str(refusal.value).startswith("the schema: #/properties/a has the keyword")
    assert repr(keyword).strip("'") in str(refusal.value)
    str(refusal.value).encode()


nested = '{"items":' * 100 + "{}" + "}" * 100
circle: dict = {"type": "array"}
circle["items"] = circle


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ('{"minimum": NaN}', "must be a number from"),
        ('{"const": 1e999}', "not JSON"),
        ('{"minimum": ' + "9" * 5000 + "}", "is not JSON"),
        ('"text"', "# is a str; a schema is an object, true or false"),
        ("false", "is false, which no document satisfies"),
        (" " * (MAX_SCHEMA_BYTES + 1), "longer than 256 KiB"),
        ({"const": "é" * (MAX_SCHEMA_BYTES // 2 + 1)}, "longer than 256 KiB"),
        ({"enum": [1] * MAX_VALUES}, "more than 20000 values"),
        (nested, "nested more than 64 deep"),
        ({"const": json.loads(nested)}, "nested more than 64 deep"),
        (circle, "nested more than 64 deep"),
        ({"const": "\ud800"}, "cannot be written as JSON"),
        ({"const": {1: 2}}, "must be text"),
        ({"const": b"x"}, "not JSON"),
        ({"const": 2**53 + 1}, "beyond 9007199254740992"),
        ({"minimum": 10**400}, "must be a number from"),
        ({"minimum": True}, "must be a number from"),
        ({"multipleOf": 0}, "must be above 0"),
        ({"exclusiveMinimum": True}, "must be a number from"),
        ({"minLength": -1}, "must be a whole number from 0"),
        ({"minLength": 1.5}, "must be a whole number from 0"),
        ({"maxItems": 10**12}, "must be a whole number from 0"),
        ({"minProperties": 2}, "# has minProperties above 1"),
        ({"type": "text"}, "#/type must be one or more of array, boolean"),
        ({"type": []}, "#/type must be one or more"),
        ({"enum": []}, "#/enum must be a list of values"),
        ({"enum": "abc"}, "#/enum must be a list of values"),
        ({"required": "a"}, "#/required must be a list of names"),
        ({"required": [1]}, "#/required must be text"),
        ({"anyOf": []}, "#/anyOf must be a list of schemas"),
        ({"properties": []}, "#/properties must be an object of schemas"),
        ({"items": [{}]}, "#/items is a list, as in draft 7; write prefixItems"),
        ({"format": "idn-email"}, "'idn-email'; it must be one of date, date-time"),
        ({"pattern": 1}, "#/pattern must be text"),
        ({"properties": {"a": {"$id": "b"}}}, "'\\$id', which is not supported"),
        ({"$ref": "http://localhost/x.json"}, "only references like"),
        ({"$ref": "file:///etc/passwd"}, "only references like"),
        ({"$ref": "#name"}, "only references like"),
        ({"$ref": "#/$defs/a"}, "where there is no schema"),
        ({"$ref": "#/const", "const": {"not": {}}}, "where there is no schema"),
        ({"$ref": "#/default", "default": {"not": {}}}, "where there is no schema"),
    ],
)
def test_what_is_wrong_or_too_large_is_refused_with_its_place(schema, words):
    with pytest.raises(ConfigError, match=words) as refusal:
        schema_text(schema, "the schema")
    assert "\n" not in str(refusal.value)
    assert len(str(refusal.value)) < 400
