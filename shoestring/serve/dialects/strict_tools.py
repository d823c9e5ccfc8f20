"""DeepSeek's strict tools: the rules for the schema of a function's arguments."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from shoestring.serve.backends.errors import RequestError

UNSUPPORTED = ("minLength", "maxLength", "minItems", "maxItems")


def check_strict_tools(tools: Iterable[Any]) -> None:
    """Raise RequestError naming the place where a function with `strict: true` breaks a rule."""
    for tool in tools:
        function = tool.get("function") if isinstance(tool, Mapping) else None
        if not isinstance(function, Mapping) or function.get("strict") is not True:
            continue
        for place, schema in _schemas(function.get("parameters"), "parameters"):
            if problem := _problem(schema):
                name = str(function.get("name"))[:64]
                message = f"strict function {name!r}: {place[:200]} {problem}"
                raise RequestError("invalid", message, field="tools")


def _problem(schema: Mapping[str, Any]) -> str | None:
    """The rule that this part of a schema breaks, if any."""
    if name := next((name for name in UNSUPPORTED if name in schema), None):
        return f"has {name}, which strict functions do not support"
    if schema.get("type") != "object":
        return None
    properties = schema.get("properties")
    if schema.get("additionalProperties") is not False:
        return "needs additionalProperties: false"
    required = schema.get("required")
    names = properties if isinstance(properties, Mapping) else {}
    if not isinstance(required, list) or any(name not in required for name in names):
        return "needs all its properties in required"
    return None


def _schemas(schema: Any, place: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """All parts of a schema that are schemas, each with its place; without recursion, however deep."""
    waiting = [(place, schema)]
    while waiting:
        place, schema = waiting.pop()
        if not isinstance(schema, Mapping):
            continue
        yield place, schema
        for key in ("properties", "$defs", "definitions"):
            if isinstance(schema.get(key), Mapping):
                waiting += [(f"{place}.{key}.{name}", each) for name, each in schema[key].items()]
        if isinstance(schema.get("anyOf"), list):
            waiting += [(f"{place}.anyOf.{number}", each) for number, each in enumerate(schema["anyOf"])]
        waiting.append((f"{place}.items", schema.get("items")))
