"""No document without an end: schemas that hold themselves, and objects that have no further name."""

import json
import random

import jsonschema
import numpy as np
import pytest

from shoestring.engine.constrain.endings import prune
from shoestring.engine.constrain.grammars import GrammarCache, unpack_mask
from shoestring.engine.request import StructuredOutputsParams
from shoestring.errors import ConfigError
from shoestring.tokenizer.bpe import Tokenizer

SOFT_STEPS, HARD_STEPS = 20, 800
CLOSERS = '}]",:10nab'
INTEGERS = {"type": "integer"}
ENDLESS = {"type": "array", "items": {"$ref": "#/$defs/endless"}, "minItems": 1}
DEFINITIONS = {"$defs": {"endless": ENDLESS}}
REFERENCE = {"$ref": "#/$defs/endless"}


@pytest.fixture(scope="module")
def cache():
    tokenizer = Tokenizer.train(['{"a": 1, "b": [null, true]}\n' * 20], 340)
    cache = GrammarCache(tokenizer, tokenizer.vocab_size, time_limit_s=5.0)
    yield cache
    cache.close()


def write(cache, schema, seed):
    """A document by random tokens, brought to its end after a while."""
    chance, ids = random.Random(seed), []
    matcher = cache.compile(StructuredOutputsParams(json=schema)).matcher()
    closers = {cache.tokenizer.encode(char)[0] for char in CLOSERS}
    for step in range(HARD_STEPS):
        allowed = np.flatnonzero(unpack_mask(matcher.mask(), cache.vocab_size)).tolist()
        if step > SOFT_STEPS:
            ends = [i for i in allowed if i == cache.tokenizer.eos_id]
            allowed = ends or [i for i in allowed if i in closers] or allowed
        token_id = chance.choice(allowed)
        assert matcher.consume(token_id)
        if token_id == cache.tokenizer.eos_id:
            return cache.tokenizer.decode(ids)
        ids.append(token_id)
    raise AssertionError(f"no end: {cache.tokenizer.decode(ids)[:200]}")


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]},
        {"type": "object", "properties": {"a": {"anyOf": [{"$ref": "#"}]}}, "required": ["a"]},
        {"type": "object", "properties": {"a": {"type": "array", "items": {"$ref": "#"}, "minItems": 1}}}
        | {"required": ["a"]},
        {"allOf": [{"type": "object", "properties": {"a": {"$ref": "#"}}}, {"required": ["a"]}]},
        {"type": "object", "additionalProperties": {"$ref": "#"}, "minProperties": 1},
        {"type": "object", "patternProperties": {"^a": {"$ref": "#"}}, "required": ["ab"]},
        {"type": "array", "prefixItems": [{"const": 1}, {"$ref": "#"}], "minItems": 2},
        {"type": ["array", "object"], "items": {"$ref": "#"}, "minItems": 1}
        | {"required": ["b"], "additionalProperties": {"$ref": "#"}},
        {**REFERENCE, **DEFINITIONS},
        {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}},
    ],
)
def test_a_schema_that_only_endless_values_satisfy_is_refused(cache, schema):
    with pytest.raises(ConfigError, match=r"never ends|nothing can match"):
        cache.compile(StructuredOutputsParams(json=schema))


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": {"a": REFERENCE, "b": INTEGERS}, "additionalProperties": False},
        {"type": "array", "items": REFERENCE},
        {"type": "array", "prefixItems": [INTEGERS, REFERENCE]},
        {"anyOf": [REFERENCE, INTEGERS]},
        {"type": "object", "additionalProperties": REFERENCE},
        {"type": "object", "patternProperties": {"^a": REFERENCE}, "additionalProperties": False},
        {"type": "object", "properties": {"a": {"anyOf": [REFERENCE, {"type": "null"}]}}, "required": ["a"]},
        {
            "type": "object",
            "properties": {"a": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}},
            "required": ["a"],
        },
    ],
)
def test_endless_parts_are_left_out_of_documents(cache, schema):
    schema = {**schema, **DEFINITIONS}
    for seed in range(5):
        jsonschema.Draft202012Validator(schema).validate(json.loads(write(cache, schema, seed)))


A = {"type": "object", "properties": {"a": INTEGERS}}


@pytest.mark.parametrize(
    "schema",
    [
        {**A, "patternProperties": {"^a$": {"minimum": 3}}, "additionalProperties": False},
        {**A, "patternProperties": {"^(a)?$": {"minimum": 3}, "^b": {"const": 1}}},
        {**A, "patternProperties": {"^[ab]$": {"minimum": 3}}, "additionalProperties": False},
        {**A, "patternProperties": {"": False}},
        {**A, "patternProperties": {"^[^b]*$": {"type": "integer"}, "b": False}},
        {**A, "patternProperties": {"^\x01$": {}}, "additionalProperties": False},
        {"type": "object", "required": ["a"], "patternProperties": {"^a$": {"const": 3}}}
        | {"additionalProperties": False},
        {"allOf": [A, {"patternProperties": {"^a$": {"minimum": 3}}, "additionalProperties": False}]},
    ],
)
def test_no_further_property_begins_without_a_name(cache, schema):
    for seed in range(8):
        document = json.loads(write(cache, schema, seed))
        if "" not in schema.get("patternProperties", {}):  # jsonschema takes no empty pattern
            jsonschema.Draft202012Validator(schema).validate(document)


def test_patterns_that_cannot_be_judged_are_refused(cache):
    names = {"type": "object", "properties": {"\x01": {}}, "patternProperties": {"^a": {}}}
    with pytest.raises(ConfigError, match="a name with a control character"):
        cache.compile(StructuredOutputsParams(json=names))


def test_more_patterns_than_can_be_judged_in_time_are_refused(cache):
    schema = {"type": "object", "patternProperties": {f"^p{i}$": {} for i in range(51)}}
    with pytest.raises(ConfigError, match="more than 50 patternProperties"):
        cache.compile(StructuredOutputsParams(json=schema))


def test_schemas_without_a_cycle_are_not_touched():
    schema = {"properties": {"a": {"$ref": "#/$defs/b"}}, "$defs": {"b": {"type": "object"}}}
    assert prune(schema, {}) is schema


@pytest.mark.parametrize("value", ["\x00", "a\x1fb", "\x7f", ["\x01"], {"k": ["\x0b"]}])
@pytest.mark.parametrize("keyword", ["const", "enum"])
def test_values_that_cannot_be_written_are_refused(cache, value, keyword):
    schema = {"const": value} if keyword == "const" else {"enum": [1, value]}
    with pytest.raises(ConfigError, match=r"control character U\+00.., which cannot be written"):
        cache.compile(StructuredOutputsParams(json=schema))
