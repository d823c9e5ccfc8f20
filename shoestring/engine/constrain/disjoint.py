"""Schemas that no value satisfies both of: a oneOf of such is an anyOf, which grammars can have."""

import json
from collections.abc import Callable
from itertools import combinations
from typing import Any

TYPES = frozenset({"null", "boolean", "integer", "number", "string", "array", "object"})
MAX_OPTIONS = 100
MAX_DEPTH = 8

Target = Callable[[str], Any]
"""The schema that a reference leads to."""


def are_exclusive(schemas: list[Any], target: Target) -> bool:
    """Return whether a value can satisfy at most one of these schemas, as far as this is easy to see."""
    pairs = combinations(schemas, 2)
    return len(schemas) <= MAX_OPTIONS and all(_are_disjoint(a, b, target, 0) for a, b in pairs)


def _are_disjoint(a: Any, b: Any, target: Target, depth: int) -> bool:
    if depth > MAX_DEPTH:
        return False
    if a is False or b is False:
        return True
    if a is True or b is True:
        return False
    for one, other in ((a, b), (b, a)):
        inner = [target(one["$ref"])] if "$ref" in one else []
        if any(_are_disjoint(part, other, target, depth + 1) for part in (*inner, *one.get("allOf", ()))):
            return True
        if "anyOf" in one and all(_are_disjoint(part, other, target, depth + 1) for part in one["anyOf"]):
            return True
    values_a, values_b = _values(a), _values(b)
    if values_a is not None and values_b is not None:
        return not values_a & values_b
    types = _types(a) & _types(b)
    if not types:
        return True
    if types <= {"integer", "number"} and (_below(a, b) or _below(b, a)):
        return True
    common = {*a.get("required", ())} & {*b.get("required", ())}
    pairs = (
        (a.get("properties", {}).get(name, True), b.get("properties", {}).get(name, True)) for name in common
    )
    return types == {"object"} and any(_are_disjoint(x, y, target, depth + 1) for x, y in pairs)


def _values(schema: dict[str, Any]) -> set[str] | None:
    """The values of a const or an enum in a form that is equal for equal values; None without them."""
    if "const" in schema:
        return {_form(schema["const"])}
    return {_form(value) for value in schema["enum"]} if "enum" in schema else None


def _form(value: Any) -> str:
    return json.dumps(_whole(value), sort_keys=True)


def _whole(value: Any) -> Any:
    """The value with 1 in place of 1.0: they are equal in JSON Schema."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {key: _whole(inner) for key, inner in value.items()}
    return [_whole(inner) for inner in value] if isinstance(value, list) else value


def _types(schema: dict[str, Any]) -> set[str]:
    values = [schema["const"]] if "const" in schema else schema.get("enum")
    names = schema.get("type", TYPES)
    types = {names} if isinstance(names, str) else set(names)
    if "number" in types:
        types.add("integer")
    return types if values is None else types & {name for value in values for name in _types_of(value)}


def _types_of(value: Any) -> list[str]:
    if isinstance(value, bool) or value is None:
        return ["null" if value is None else "boolean"]
    if isinstance(value, (int, float)):
        return ["number", "integer"]
    return ["string" if isinstance(value, str) else "array" if isinstance(value, list) else "object"]


def _below(a: dict[str, Any], b: dict[str, Any]) -> bool:
    """Return whether every number of one schema is below every number of another."""
    infinity = float("inf")
    highest = min(a.get("maximum", infinity), a.get("exclusiveMaximum", infinity))
    lowest = max(b.get("minimum", -infinity), b.get("exclusiveMinimum", -infinity))
    is_exclusive = highest == a.get("exclusiveMaximum") or lowest == b.get("exclusiveMinimum")
    return bool(highest < lowest) or bool(highest == lowest and is_exclusive and abs(highest) != infinity)
