import pytest

from shoestring.serve.backends.errors import RequestError
from shoestring.serve.dialects.strict_tools import check_strict_tools


def strict(properties, **fields):
    schema = {"type": "object", "properties": properties, "required": list(properties)}
    return {"additionalProperties": False, **schema, **fields}


def tool(parameters, is_strict=True):
    return {"type": "function", "function": {"name": "f", "strict": is_strict, "parameters": parameters}}


GOOD = [
    strict({}),
    strict({"a": {"type": "string", "format": "email"}, "b": {"enum": [1, 2]}}),
    strict({"a": {"anyOf": [strict({"b": {"type": "integer"}}), {"type": "number"}]}}),
    strict({"a": {"$ref": "#/$defs/x"}}, **{"$defs": {"x": strict({"minLength": {"type": "string"}})}}),
]
WRONG = [
    (strict({"a": {"type": "string"}}, required=[]), "parameters needs all its properties in required"),
    (strict({}, additionalProperties=True), "parameters needs additionalProperties: false"),
    ({"type": "object"}, "additionalProperties"),
    (strict({"a": {"type": "string", "minLength": 3}}), "parameters.properties.a has minLength"),
    (strict({"a": {"type": "array", "items": {"type": "array", "maxItems": 2}}}), "items has maxItems"),
    (strict({"a": {"anyOf": [{"type": "object", "properties": {}}]}}), "anyOf.0 needs additionalProperties"),
    (strict({"a": {"$ref": "#/$defs/x"}}, **{"$defs": {"x": {"type": "object"}}}), r"\$defs.x"),
]


@pytest.mark.parametrize("parameters", GOOD)
def test_strict_functions_pass(parameters):
    check_strict_tools([tool(parameters)])


@pytest.mark.parametrize(("parameters", "words"), WRONG)
def test_a_broken_rule_is_named_with_its_place(parameters, words):
    with pytest.raises(RequestError, match=words):
        check_strict_tools([tool(parameters)])
    check_strict_tools([tool(parameters, is_strict=False)])


def test_other_things_are_left_to_others_and_depth_does_not_matter():
    check_strict_tools([None, {}, {"function": 3}, tool(None), tool({"type": 3})])
    deep: dict = {"type": "string", "maxLength": 1}
    for _ in range(50_000):
        deep = {"items": deep}
    with pytest.raises(RequestError, match="maxLength"):
        check_strict_tools([tool(deep)])
