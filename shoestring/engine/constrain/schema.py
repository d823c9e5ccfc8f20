"""The check of untrusted JSON schemas: keywords enforced or refused, limited sizes, local references.

The rest is JSON Schema 2020-12 as llguidance enforces it. A keyword that it enforces only in part, so that an
invalid document could be generated, is refused here; so is a schema whose documents could not end.
"""

import json
import math
from collections.abc import Callable, Mapping
from typing import Any

from shoestring.engine.constrain.disjoint import are_exclusive
from shoestring.engine.constrain.endings import inner_schemas, prune, target
from shoestring.engine.constrain.names import CanMatch, settle_names
from shoestring.engine.constrain.pattern import UNWRITABLE, name_pattern, schema_pattern
from shoestring.errors import ConfigError

MAX_SCHEMA_BYTES = 256 << 10
MAX_DEPTH = 64
MAX_VALUES = 20_000
"""Objects, arrays, strings and numbers in one schema."""
MAX_COUNT = 2**31 - 1
MAX_NUMBER = 2**53
"""Whole numbers beyond this are not exact as float64, in which bounds are compared."""

ANNOTATIONS = frozenset(
    {"title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly"}
    | {"$comment", "$schema", "contentEncoding", "contentMediaType"}
)
"""Keywords that do not decide which documents are valid (JSON Schema 2020-12, validation, 8 and 9)."""
SCHEMAS = frozenset({"items", "additionalProperties"})
LISTS_OF_SCHEMAS = frozenset({"anyOf", "oneOf", "allOf", "prefixItems"})
MAPS_OF_SCHEMAS = frozenset({"properties", "patternProperties", "$defs", "definitions"})
COUNTS = frozenset({"minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties"})
NUMBERS = frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"})
TYPES = frozenset({"null", "boolean", "integer", "number", "string", "array", "object"})
FORMATS = frozenset(
    {"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri"}
)

# White space in a document: none, one space, or a line break with an indent, so that a model cannot write
# white space without end. \u escapes are excluded, since llguidance takes "\u0061" for a name other than "a"
# and lets a property break its own schema. Text is written as it is; control characters without a short
# escape cannot be written.
LAYOUT = {
    "whitespace_pattern": r"\x20|\r?\n[\x20\x09]{0,64}",
    "json_allowed_escapes": 'nrbtf\\"',
}
ONE_LINE = {**LAYOUT, "whitespace_pattern": r"\x20"}
"""Layout of a tool call's arguments, which programs read: as json.dumps writes them, or without spaces."""


def schema_text(
    schema: Mapping[str, Any] | str | bool,
    name: str,
    can_match: CanMatch | None = None,
    layout: Mapping[str, Any] = LAYOUT,
) -> str:
    """The schema for llguidance: checked, without annotations, with its layout.

    `schema` is the schema or its JSON text; `name` is its name in errors; `can_match` says whether a grammar
    has any text. Raises ConfigError naming the place and the keyword.
    """
    value = parse(schema, name) if isinstance(schema, str) else schema
    walk = _Walk(name)
    result = walk.schema(value, (), 0)
    walk.check_references()
    if result is True:
        result = {}
    if result is False:
        raise ConfigError(f"{name} is false, which no document satisfies")
    try:
        result = _finite(result, walk.patterns, can_match)
    except ConfigError as fault:
        raise ConfigError(f"{name} {fault}") from None
    return to_json({"x-guidance": layout, **result}, name)


def _finite(schema: dict[str, Any], patterns: dict[str, str], can_match: CanMatch | None) -> dict[str, Any]:
    """The checked schema so that every text that it allows can end."""
    for one in inner_schemas(schema):
        if "oneOf" in one and are_exclusive(one["oneOf"], lambda reference: target(schema, reference)):
            exclusive = {"anyOf": one.pop("oneOf")}
            if "anyOf" in one:
                one["allOf"] = [*one.get("allOf", ()), exclusive]
            else:
                one.update(exclusive)
    if patterns:
        _check_names(schema)
    if can_match is not None:
        settle_names(list(inner_schemas(schema)), can_match)
    return prune(schema, patterns)


def _check_names(schema: dict[str, Any]) -> None:
    """Refuse names that patterns, in which control characters cannot stand, would miss."""
    for one in inner_schemas(schema):
        for name in (*one.get("properties", ()), *one.get("required", ())):
            if UNWRITABLE.intersection(map(ord, name)):
                raise ConfigError("has patternProperties beside a name with a control character; rename it")


def parse(text: str, name: str) -> Any:
    """JSON text as a value; ConfigError when it is too long or not JSON."""
    if len(text) > MAX_SCHEMA_BYTES:
        raise ConfigError(f"{name} is longer than {MAX_SCHEMA_BYTES >> 10} KiB; use a smaller schema")
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{name} is not JSON: {str(error)[:100]}") from None


def to_json(value: Any, name: str) -> str:
    """A value as JSON text; ConfigError when it is too long or has no JSON form."""
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
        size = len(text.encode())
    except (TypeError, ValueError, RecursionError) as error:  # UnicodeEncodeError is a ValueError
        raise ConfigError(f"{name} cannot be written as JSON: {str(error)[:100]}") from None
    if size > MAX_SCHEMA_BYTES:
        raise ConfigError(f"{name} is longer than {MAX_SCHEMA_BYTES >> 10} KiB; use a smaller schema")
    return text


class _Walk:
    """One pass over a schema: it checks, copies, and collects the places of schemas and references."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.values = 0
        self.places: set[tuple[str, ...]] = set()
        self.references: list[tuple[str, tuple[str, ...]]] = []
        self.patterns: dict[str, str] = {}
        """The names in patternProperties as they are passed on, and as they were."""

    def schema(self, schema: Any, path: tuple[str, ...], depth: int) -> Any:
        """The checked copy of a (sub)schema."""
        self._count(schema, path, depth)
        self.places.add(path)
        if isinstance(schema, bool):
            return schema
        if not isinstance(schema, Mapping):
            raise self._error(path, f"is a {type(schema).__name__}; a schema is an object, true or false")
        result = {}
        for key, value in schema.items():
            if key in ANNOTATIONS or (key == "$id" and not path):
                self._plain(value, (*path, key), depth + 1)
            elif (key, value) != ("uniqueItems", False):  # false is the default
                result[key] = self._keyword(key, value, path, depth)
        if "patternProperties" in result:
            result["patternProperties"] = self._translate_names(result, (*path, "patternProperties"))
        self._check_object(result, path)
        return result

    def check_references(self) -> None:
        """Check that every $ref leads to a schema in this document."""
        for reference, path in self.references:
            if not (reference == "#" or reference.startswith("#/")) or "%" in reference:
                raise self._error(path, f"refers to {reference[:80]!r}; only references like '#/$defs/name'")
            parts = reference.split("/")[1:]
            if tuple(part.replace("~1", "/").replace("~0", "~") for part in parts) not in self.places:
                raise self._error(path, f"refers to {reference[:80]!r}, where there is no schema")

    def _keyword(self, key: Any, value: Any, path: tuple[str, ...], depth: int) -> Any:
        here = (*path, str(key))
        if key in SCHEMAS:
            if key == "items" and isinstance(value, list):
                raise self._error(here, "is a list, as in draft 7; write prefixItems")
            return self.schema(value, here, depth + 1)
        if key in LISTS_OF_SCHEMAS:
            self._expect(isinstance(value, list) and value != [], here, "must be a list of schemas")
            return [self.schema(item, (*here, str(i)), depth + 1) for i, item in enumerate(value)]
        if key in MAPS_OF_SCHEMAS:
            self._expect(isinstance(value, Mapping), here, "must be an object of schemas")
            self._count(value, here, depth)
            return {
                self._text(name, here): self.schema(item, (*here, str(name)), depth + 1)
                for name, item in value.items()
            }
        check = self._simple_keywords().get(key)
        if check is None:
            raise self._error(path, f"has the keyword {str(key)[:80]!r}, which is not supported")
        return check(value, here)

    def _simple_keywords(self) -> dict[Any, Callable[[Any, tuple[str, ...]], Any]]:
        return {
            **dict.fromkeys(COUNTS, self._whole),
            **dict.fromkeys(NUMBERS, self._number),
            "type": self._type,
            "required": self._names,
            "enum": self._enum,
            "const": lambda value, here: self._value(value, here),
            "pattern": self._pattern,
            "format": self._format,
            "$ref": self._reference,
        }

    def _check_object(self, schema: dict[str, Any], path: tuple[str, ...]) -> None:
        """Refuse minProperties beyond the required names, which llguidance does not enforce."""
        num_required = len(schema.get("required", []))
        if schema.get("minProperties", 0) > max(1, num_required):
            raise self._error(path, "has minProperties above 1; list the names in required instead")
        if schema.get("minProperties", 0) > 1:
            del schema["minProperties"]  # the required ones are enough

    def _whole(self, value: Any, here: tuple[str, ...]) -> int:
        valid = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_COUNT
        self._expect(valid, here, f"must be a whole number from 0 to {MAX_COUNT}")
        return int(value)

    def _number(self, value: Any, here: tuple[str, ...]) -> float:
        valid = isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= MAX_NUMBER
        self._expect(valid, here, f"must be a number from -{MAX_NUMBER} to {MAX_NUMBER}")
        self._expect(here[-1] != "multipleOf" or value > 0, here, "must be above 0")
        return value  # type: ignore[no-any-return]

    def _type(self, value: Any, here: tuple[str, ...]) -> Any:
        names = value if isinstance(value, list) else [value]
        valid = bool(names) and all(isinstance(name, str) and name in TYPES for name in names)
        self._expect(valid, here, f"must be one or more of {', '.join(sorted(TYPES))}")
        return value

    def _names(self, value: Any, here: tuple[str, ...]) -> list[str]:
        self._expect(isinstance(value, list), here, "must be a list of names")
        self._plain(value, here, 0)
        return list(dict.fromkeys(self._text(name, here) for name in value))

    def _enum(self, value: Any, here: tuple[str, ...]) -> list[Any]:
        self._expect(isinstance(value, list) and value != [], here, "must be a list of values")
        return [self._value(item, here) for item in value]

    def _format(self, value: Any, here: tuple[str, ...]) -> Any:
        valid = isinstance(value, str) and value in FORMATS
        self._expect(valid, here, f"is {str(value)[:40]!r}; it must be one of {', '.join(sorted(FORMATS))}")
        return value

    def _reference(self, value: Any, here: tuple[str, ...]) -> str:
        self.references.append((self._text(value, here), here))
        return str(value)

    def _pattern(self, value: Any, here: tuple[str, ...]) -> str:
        """The pattern in llguidance's dialect."""
        try:
            return schema_pattern(self._text(value, here))
        except ConfigError as fault:
            raise self._error(here, str(fault)) from None

    def _translate_names(self, schema: dict[str, Any], here: tuple[str, ...]) -> dict[str, Any]:
        """The schema's patternProperties with their names in llguidance's dialect."""
        names: dict[str, Any] = {}
        for text, inner in schema["patternProperties"].items():
            try:
                pattern = name_pattern(text, schema.get("additionalProperties", True))
            except ConfigError as fault:
                raise self._error((*here, text), str(fault)) from None
            self.patterns[pattern] = text
            names[pattern] = {"allOf": [names[pattern], inner]} if pattern in names else inner
        return names

    def _value(self, value: Any, here: tuple[str, ...]) -> Any:
        """A value that a document may be, or hold."""
        value = self._plain(value, here, 0)
        stack = [value]
        while stack:
            part = stack.pop()
            stack += part.values() if isinstance(part, dict) else part if isinstance(part, list) else ()
            characters = UNWRITABLE.intersection(map(ord, part)) if isinstance(part, str) else ()
            if characters:
                character = f"U+{min(characters):04X}"
                raise self._error(here, f"has the control character {character}, which cannot be written")
        return value

    def _text(self, value: Any, here: tuple[str, ...]) -> str:
        self._expect(isinstance(value, str), here, "must be text")
        return str(value)

    def _plain(self, value: Any, here: tuple[str, ...], depth: int) -> Any:
        """A JSON value that is not a schema (const, enum, default...), counted and checked."""
        self._count(value, here, depth)
        if isinstance(value, Mapping):
            return {self._text(k, here): self._plain(v, here, depth + 1) for k, v in value.items()}
        if isinstance(value, list):
            return [self._plain(item, here, depth + 1) for item in value]
        exact = not isinstance(value, int) or abs(value) <= MAX_NUMBER
        self._expect(exact, here, f"has a whole number beyond {MAX_NUMBER}, which JSON readers round")
        finite = not isinstance(value, float) or math.isfinite(value)
        valid = value is None or (isinstance(value, (str, int, float)) and finite)
        self._expect(valid, here, "has a value that is not JSON")
        return value

    def _count(self, value: Any, here: tuple[str, ...], depth: int) -> None:
        self.values += 1 + (len(value) if isinstance(value, (Mapping, list)) else 0)
        if self.values > MAX_VALUES:
            raise ConfigError(f"{self.name} has more than {MAX_VALUES} values; use a smaller schema")
        self._expect(depth <= MAX_DEPTH, here[:4], f"is nested more than {MAX_DEPTH} deep")

    def _expect(self, valid: bool, here: tuple[str, ...], fault: str) -> None:
        if not valid:
            raise self._error(here, fault)

    def _error(self, path: tuple[str, ...], fault: str) -> ConfigError:
        place = "/".join(("#", *path))[:120]
        sentence = f"{self.name}: {place} {fault}"
        return ConfigError(sentence.encode(errors="backslashreplace").decode())
