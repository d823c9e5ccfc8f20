"""Names of an object's properties by patternProperties: patterns that no further name can match are settled.

llguidance lets an object begin a further property even when no name is left for it, and the text then cannot
go on.
"""

import json
from collections.abc import Callable, Collection, Iterable
from typing import Any

from shoestring.engine.constrain.pattern import NOT_WRITABLE, whole_regex
from shoestring.errors import ConfigError

CHOICES = frozenset({"$ref", "anyOf", "oneOf"})
DEFINITIONS = frozenset({"$defs", "definitions"})

MAX_PATTERNS = 50
"""In one document: whether each has a name takes up to 5 ms to find out."""

CanMatch = Callable[[str], bool]
"""Whether a grammar in Lark's notation has any text."""


def settle_names(schemas: list[dict[str, Any]], can_match: CanMatch) -> None:
    """Change each of a document's schemas so that a further property has a name whenever one is allowed."""
    with_patterns = [schema for schema in schemas if schema.get("patternProperties")]
    if not with_patterns:
        return
    if sum(len(schema["patternProperties"]) for schema in with_patterns) > MAX_PATTERNS:
        raise ConfigError(f"has more than {MAX_PATTERNS} patternProperties; use fewer")
    is_merged = any(
        "allOf" in schema or (CHOICES & schema.keys() and len(schema.keys() - DEFINITIONS) > 1)
        for schema in schemas
    )
    everywhere = {name for schema in schemas for name in _names(schema)} if is_merged else set()
    for schema in with_patterns:
        names = {*_names(schema), *everywhere}
        for pattern in list(schema["patternProperties"]):
            if not can_match(_grammar([pattern], [], names)):
                _fold(schema, pattern, names, can_match)
        patterns = list(schema["patternProperties"])
        can_have_others = schema.get("additionalProperties", True) is not False
        if can_have_others and not can_match(_grammar([], patterns, _names(schema))):
            schema["additionalProperties"] = False


def _fold(schema: dict[str, Any], pattern: str, names: Collection[str], can_match: CanMatch) -> None:
    """Move a pattern's schema to the properties that it matches, which are all that it can match."""
    inner = schema["patternProperties"].pop(pattern)
    properties = schema.setdefault("properties", {})
    for name in sorted(names):
        if can_match(_grammar([pattern], [], [], only=[name])):
            both = [inner, properties[name]] if name in properties else [inner]
            schema["properties"][name] = {"allOf": both} if len(both) > 1 else inner


def _names(schema: dict[str, Any]) -> set[str]:
    return {*schema.get("properties", ()), *schema.get("required", ())}


def _grammar(
    patterns: Iterable[str], not_patterns: Iterable[str], names: Collection[str], only: Collection[str] = ()
) -> str:
    """Lark text of the names that match all patterns and no `not_patterns`, and are not listed."""
    parts = [rf"/[^{NOT_WRITABLE}]*/", *(f"/{whole_regex(pattern)}/" for pattern in patterns)]
    parts += [f"~/{whole_regex(pattern)}/" for pattern in not_patterns]
    rules = []
    if names:
        parts.append("~LISTED")
        rules.append(f"LISTED: {_literals(names)}")
    if only:
        parts.append("ONLY")
        rules.append(f"ONLY: {_literals(only)}")
    return "\n".join(['start: TEXT\nTEXT: "<" NAME ">"', f"NAME: {' & '.join(parts)}", *rules])


def _literals(names: Iterable[str]) -> str:
    return " | ".join(json.dumps(name, ensure_ascii=False) for name in sorted(names))
