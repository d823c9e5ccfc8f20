"""JSON schemas from strangers: every keyword honored or refused by name, sizes bounded, references local.

What is left after this is JSON Schema 2020-12 as llguidance enforces it. Where a keyword would be enforced
only in part, so that an invalid document could be made, it is refused here.
"""

import json
import math
from collections.abc import Callable, Mapping
from typing import Any

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
"""Keywords that say nothing about which documents are valid (JSON Schema 2020-12, validation, 8 and 9)."""
SCHEMAS = frozenset({"items", "additionalProperties"})
LISTS_OF_SCHEMAS = frozenset({"anyOf", "oneOf", "allOf", "prefixItems"})
MAPS_OF_SCHEMAS = frozenset({"properties", "patternProperties", "$defs", "definitions"})
COUNTS = frozenset({"minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties"})
NUMBERS = frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"})
TYPES = frozenset({"null", "boolean", "integer", "number", "string", "array", "object"})
FORMATS = frozenset(
    {"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri"}
)

# How a document may be laid out: compact, with a space, or a line and an indent at a time; a model cannot go
# on writing white space for ever. \u escapes are left out, since with them llguidance takes "\u0061" for a
# name other than "a" and lets a property break its own schema. Text is written as it is; the control
# characters without a short escape cannot be written.
LAYOUT = {
    "whitespace_pattern": r"\x20|\r?\n[\x20\x09]{0,64}",
    "json_allowed_escapes": 'nrbtf\\"',
}


def schema_text(schema: Mapping[str, Any] | str | bool, name: str) -> str:
    """The schema as llguidance shall read it: checked, without annotations, with our layout.

    `schema` is the schema or its JSON text; `name` is what the user calls it. Raises ConfigError naming the
    place and the keyword.
    """
    value = parse(schema, name) if isinstance(schema, str) else schema
    walk = _Walk(name)
    checked = walk.schema(value, (), 0)
    walk.check_references()
    if checked is True:
        checked = {}
    if checked is False:
        raise ConfigError(f"{name} is false, which no document satisfies")
    return to_json({"x-guidance": LAYOUT, **checked}, name)


def parse(text: str, name: str) -> Any:
    """JSON text as a value; ConfigError for what is too long or no JSON."""
    if len(text) > MAX_SCHEMA_BYTES:
        raise ConfigError(f"{name} is longer than {MAX_SCHEMA_BYTES >> 10} KiB; use a smaller schema")
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{name} is no JSON: {str(error)[:100]}") from None


def to_json(value: Any, name: str) -> str:
    """A value as JSON text; ConfigError when it is too long or holds what JSON cannot say."""
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
        size = len(text.encode())
    except (TypeError, ValueError, RecursionError) as error:  # UnicodeEncodeError is a ValueError
        raise ConfigError(f"{name} cannot be written as JSON: {str(error)[:100]}") from None
    if size > MAX_SCHEMA_BYTES:
        raise ConfigError(f"{name} is longer than {MAX_SCHEMA_BYTES >> 10} KiB; use a smaller schema")
    return text


class _Walk:
    """One pass over a schema: checks and copies it, and remembers where schemas and references are."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.values = 0
        self.places: set[tuple[str, ...]] = set()
        self.references: list[tuple[str, tuple[str, ...]]] = []

    def schema(self, value: Any, path: tuple[str, ...], depth: int) -> Any:
        """The checked copy of a (sub)schema."""
        self._count(value, path, depth)
        self.places.add(path)
        if isinstance(value, bool):
            return value
        if not isinstance(value, Mapping):
            raise self._error(path, f"is a {type(value).__name__}; a schema is an object, true or false")
        checked = {}
        for key, given in value.items():
            if key in ANNOTATIONS or (key == "$id" and not path):
                self._plain(given, (*path, key), depth + 1)
            elif (key, given) != ("uniqueItems", False):  # false is what holds without it
                checked[key] = self._keyword(key, given, path, depth)
        self._check_object(checked, path)
        return checked

    def check_references(self) -> None:
        """Every $ref must lead to a place in this document that was checked as a schema."""
        for reference, path in self.references:
            if not (reference == "#" or reference.startswith("#/")) or "%" in reference:
                raise self._error(path, f"refers to {reference[:80]!r}; only references like '#/$defs/name'")
            parts = reference.split("/")[1:]
            if tuple(part.replace("~1", "/").replace("~0", "~") for part in parts) not in self.places:
                raise self._error(path, f"refers to {reference[:80]!r}, where there is no schema")

    def _keyword(self, key: Any, given: Any, path: tuple[str, ...], depth: int) -> Any:
        here = (*path, str(key))
        if key in SCHEMAS:
            if key == "items" and isinstance(given, list):
                raise self._error(here, "is a list, as in draft 7; write prefixItems")
            return self.schema(given, here, depth + 1)
        if key in LISTS_OF_SCHEMAS:
            self._expect(isinstance(given, list) and given != [], here, "must be a list of schemas")
            return [self.schema(item, (*here, str(i)), depth + 1) for i, item in enumerate(given)]
        if key in MAPS_OF_SCHEMAS:
            self._expect(isinstance(given, Mapping), here, "must be an object of schemas")
            self._count(given, here, depth)
            return {
                self._text(name, here): self.schema(item, (*here, str(name)), depth + 1)
                for name, item in given.items()
            }
        check = self._simple_keywords().get(key)
        if check is None:
            raise self._error(path, f"has the keyword {str(key)[:80]!r}, which is not supported")
        return check(given, here)

    def _simple_keywords(self) -> dict[Any, Callable[[Any, tuple[str, ...]], Any]]:
        return {
            **dict.fromkeys(COUNTS, self._whole),
            **dict.fromkeys(NUMBERS, self._number),
            "type": self._type,
            "required": self._names,
            "enum": self._enum,
            "const": lambda given, here: self._plain(given, here, 0),
            "pattern": self._text,
            "format": self._format,
            "$ref": self._reference,
        }

    def _check_object(self, schema: dict[str, Any], path: tuple[str, ...]) -> None:
        """What llguidance does not hold for objects: distinct names beyond those listed."""
        required = schema.get("required", [])
        if schema.get("minProperties", 0) > max(1, len(required)):
            raise self._error(path, "has minProperties above 1; list the names in required instead")
        if schema.get("minProperties", 0) > 1:
            del schema["minProperties"]  # the required ones are enough

    def _whole(self, given: Any, here: tuple[str, ...]) -> int:
        valid = isinstance(given, int) and not isinstance(given, bool) and 0 <= given <= MAX_COUNT
        self._expect(valid, here, f"must be a whole number from 0 to {MAX_COUNT}")
        return int(given)

    def _number(self, given: Any, here: tuple[str, ...]) -> float:
        valid = isinstance(given, (int, float)) and not isinstance(given, bool) and abs(given) <= MAX_NUMBER
        self._expect(valid, here, f"must be a number from -{MAX_NUMBER} to {MAX_NUMBER}")
        self._expect(here[-1] != "multipleOf" or given > 0, here, "must be above 0")
        return given  # type: ignore[no-any-return]

    def _type(self, given: Any, here: tuple[str, ...]) -> Any:
        names = given if isinstance(given, list) else [given]
        valid = bool(names) and all(isinstance(name, str) and name in TYPES for name in names)
        self._expect(valid, here, f"must be one or more of {', '.join(sorted(TYPES))}")
        return given

    def _names(self, given: Any, here: tuple[str, ...]) -> list[str]:
        self._expect(isinstance(given, list), here, "must be a list of names")
        self._plain(given, here, 0)
        return list(dict.fromkeys(self._text(name, here) for name in given))

    def _enum(self, given: Any, here: tuple[str, ...]) -> list[Any]:
        self._expect(isinstance(given, list) and given != [], here, "must be a list of values")
        return [self._plain(item, here, 0) for item in given]

    def _format(self, given: Any, here: tuple[str, ...]) -> Any:
        valid = isinstance(given, str) and given in FORMATS
        self._expect(valid, here, f"is {str(given)[:40]!r}; it must be one of {', '.join(sorted(FORMATS))}")
        return given

    def _reference(self, given: Any, here: tuple[str, ...]) -> str:
        self.references.append((self._text(given, here), here))
        return str(given)

    def _text(self, given: Any, here: tuple[str, ...]) -> str:
        self._expect(isinstance(given, str), here, "must be text")
        return str(given)

    def _plain(self, given: Any, here: tuple[str, ...], depth: int) -> Any:
        """A JSON value that is no schema (const, enum, default...), counted and checked."""
        self._count(given, here, depth)
        if isinstance(given, Mapping):
            return {self._text(k, here): self._plain(v, here, depth + 1) for k, v in given.items()}
        if isinstance(given, list):
            return [self._plain(item, here, depth + 1) for item in given]
        exact = not isinstance(given, int) or abs(given) <= MAX_NUMBER
        self._expect(exact, here, f"has a whole number beyond {MAX_NUMBER}, which JSON readers round")
        finite = not isinstance(given, float) or math.isfinite(given)
        valid = given is None or (isinstance(given, (str, int, float)) and finite)
        self._expect(valid, here, "has a value that is no JSON")
        return given

    def _count(self, value: Any, here: tuple[str, ...], depth: int) -> None:
        self.values += 1 + (len(value) if isinstance(value, (Mapping, list)) else 0)
        if self.values > MAX_VALUES:
            raise ConfigError(f"{self.name} has more than {MAX_VALUES} values; use a smaller schema")
        self._expect(depth <= MAX_DEPTH, here[:4], f"is nested more than {MAX_DEPTH} deep")

    def _expect(self, valid: bool, here: tuple[str, ...], must: str) -> None:
        if not valid:
            raise self._error(here, must)

    def _error(self, path: tuple[str, ...], fault: str) -> ConfigError:
        place = "/".join(("#", *path))[:120]
        sentence = f"{self.name}: {place} {fault}"
        return ConfigError(sentence.encode(errors="backslashreplace").decode())
