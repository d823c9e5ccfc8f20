"""Values that never end: a schema that only they satisfy becomes false.

A value in which a schema requires itself again (by `$ref`, through required properties or items) has no end.
llguidance would begin such a value and nest until the length limit.
"""

import re
from collections.abc import Iterator, Mapping
from itertools import product
from typing import Any

from shoestring.errors import ConfigError

MAX_ALTERNATIVES = 4096
MAX_DEPTH = 100
"""References and combinations within each other, without a property or an item between them."""
MAX_STATES = 1024
MAX_EXPANSIONS = 20_000

State = frozenset[int]
"""Schemas, by id, that hold for one value together."""


def prune(root: dict[str, Any], patterns: Mapping[str, str]) -> dict[str, Any]:
    """The schema with `false` in place of what has no end; `patterns` are the translated ones' originals.

    Raises ConfigError, a part of a sentence, when the schema itself has no end, or cannot be analyzed.
    """
    graph = _Graph(root, patterns)
    if not graph.is_recursive():
        return root
    start = State({id(root)})
    graph.explore(start)
    for schema in inner_schemas(root):
        for option in (*schema.get("anyOf", ()), *schema.get("oneOf", ())):
            if isinstance(option, dict):
                graph.explore(State({id(option)}))
    finite, possible = graph.solve(is_finite=True), graph.solve(is_finite=False)
    if start in finite or start not in possible:
        endless = graph.endless(finite, possible)
        return graph.replace(root, endless) if endless else root
    raise ConfigError("requires itself again in every value, which so never ends; make a property optional")


class _Graph:
    """The states that can be reached from the root, and what a value of each requires."""

    def __init__(self, root: dict[str, Any], patterns: Mapping[str, str]) -> None:
        self.root, self.patterns = root, patterns
        self.schemas = {id(schema): schema for schema in inner_schemas(root)}
        self.num_expansions = 0
        # For each state its alternatives: groups of states, of each group at least one must be possible.
        self.needs: dict[State, list[list[list[State]]]] = {}
        self.children: dict[State, list[State]] = {}

    def is_recursive(self) -> bool:
        """Return whether a schema contains a reference to one that contains it."""
        finished: set[int] = set()
        active: set[int] = set()
        stack: list[tuple[dict[str, Any], bool]] = [(self.root, False)]
        while stack:
            schema, is_left = stack.pop()
            if is_left:
                active.discard(id(schema))
                finished.add(id(schema))
                continue
            if id(schema) in active:
                return True
            if id(schema) in finished:
                continue
            active.add(id(schema))
            stack.append((schema, True))
            following = [*_inner(schema, with_definitions=False)]
            if "$ref" in schema and isinstance(target := self.target(schema["$ref"]), dict):
                following.append(target)
            stack += [(one, False) for one in following]
        return False

    def target(self, reference: str) -> Any:
        """The schema that a checked reference leads to."""
        return target(self.root, reference)

    def explore(self, start: State) -> None:
        """Collect every state that a value may come to."""
        waiting = [start]
        while waiting:
            state = waiting.pop()
            if state in self.needs:
                continue
            if len(self.needs) > MAX_STATES:
                raise ConfigError("combines too many schemas that refer to themselves; use a simpler one")
            self.needs[state], self.children[state] = [], []
            for flat in self._alternatives(state):
                needs, children = self._requirements([self.schemas[one] for one in flat])
                if needs is not None:
                    self.needs[state].append(needs)
                self.children[state] += children
            waiting += self.children[state]

    def solve(self, *, is_finite: bool) -> set[State]:
        """The states with a value: a finite one, or one that may be endless."""
        result: set[State] = set() if is_finite else set(self.needs)
        while True:
            new = {
                state
                for state, alternatives in self.needs.items()
                if any(all(any(s in result for s in group) for group in groups) for groups in alternatives)
            }
            if new == result:
                return result
            result = new

    def endless(self, finite: set[State], possible: set[State]) -> set[int]:
        """The schemas, by id, that only endless values satisfy."""
        result: set[int] = set()
        for state in possible - finite:
            single = [one for one in state if State({one}) in possible and State({one}) not in finite]
            if not single:
                raise ConfigError("combines schemas whose common values never end; make a property optional")
            result.update(single)
        return result

    def replace(self, value: Any, endless: set[int]) -> Any:
        if isinstance(value, dict):
            return {
                key: False if id(inner) in endless else self.replace(inner, endless)
                for key, inner in value.items()
            }
        if isinstance(value, list):
            return [False if id(inner) in endless else self.replace(inner, endless) for inner in value]
        return value

    def _alternatives(self, state: State) -> list[State]:
        """The ways to satisfy all schemas of a state, each without references and choices."""
        return _join([self._expand(self.schemas[one], ()) for one in state])

    def _expand(self, schema: Any, active: tuple[int, ...]) -> list[State]:
        if schema is True:
            return [State()]
        if schema is False or id(schema) in active:
            return []
        self.num_expansions += 1
        if self.num_expansions > MAX_EXPANSIONS or len(active) > MAX_DEPTH:
            raise ConfigError("combines too many schemas that refer to themselves; use a simpler one")
        active = (*active, id(schema))
        parts: list[list[State]] = [[State({id(schema)})]]
        if "$ref" in schema:
            parts.append(self._expand(self.target(schema["$ref"]), active))
        parts += [self._expand(one, active) for one in schema.get("allOf", ())]
        for choice in ("anyOf", "oneOf"):
            if choice in schema:
                parts.append([state for one in schema[choice] for state in self._expand(one, active)])
        return _join(parts)

    def _requirements(self, flat: list[dict[str, Any]]) -> tuple[list[list[State]] | None, list[State]]:
        """The needs of a value, None if it is impossible, and all states that its parts may come to."""
        children: list[State] = []
        if not flat or any("const" in schema or "enum" in schema for schema in flat):
            return [], []
        types = {"null", "array", "object", "string", "number"}
        for schema in flat:
            names = schema.get("type", list(types))
            types &= {"number" if n == "integer" else "null" if n == "boolean" else n for n in _listed(names)}
        needs: list[list[list[State]]] = []
        if "array" in types:
            self._array(flat, needs, children)
        if "object" in types:
            self._object(flat, needs, children)
        if types - {"array", "object"}:
            return [], children
        if not needs:
            return None, children
        if len(needs) == 1:
            return needs[0], children
        # an array or an object: of each pair of groups one
        return ([] if [] in needs else [[*a, *b] for a, b in product(*needs)]), children

    def _array(
        self, flat: list[dict[str, Any]], needs: list[list[list[State]]], children: list[State]
    ) -> None:
        longest = max(len(schema.get("prefixItems", ())) for schema in flat)
        num_required = max(schema.get("minItems", 0) for schema in flat)
        groups: list[list[State]] = []
        for index in range(longest + 1):
            parts = []
            for schema in flat:
                prefix = schema.get("prefixItems", ())
                parts.append(prefix[index] if index < len(prefix) else schema.get("items", True))
            child = _state(parts)
            children += [] if child is None else [child]
            if index < num_required:
                groups.append([] if child is None else [child])
        needs.append(groups)

    def _object(
        self, flat: list[dict[str, Any]], needs: list[list[list[State]]], children: list[State]
    ) -> None:
        names = {
            name for schema in flat for name in (*schema.get("properties", ()), *schema.get("required", ()))
        }
        states = {
            name: _state([one for schema in flat for one in self._property(schema, name)]) for name in names
        }
        others = [_state([schema.get("additionalProperties", True) for schema in flat])]
        for schema in flat:
            for pattern, inner in schema.get("patternProperties", {}).items():
                rest = [other.get("additionalProperties", True) for other in flat if other is not schema]
                same = [other.get("patternProperties", {}).get(pattern, True) for other in flat]
                others += [_state([inner, *same]), _state([inner, *rest])]
        candidates = [state for state in (*states.values(), *others) if state is not None]
        children += candidates
        required = {name for schema in flat for name in schema.get("required", ())}
        groups = [[] if (state := states[name]) is None else [state] for name in required]
        if not groups and any(schema.get("minProperties", 0) for schema in flat):
            groups.append(candidates)
        needs.append(groups)

    def _property(self, schema: dict[str, Any], name: str) -> Iterator[Any]:
        """The schemas that one schema has for a property's value."""
        is_listed = False
        if name in schema.get("properties", ()):
            is_listed = True
            yield schema["properties"][name]
        for pattern, inner in schema.get("patternProperties", {}).items():
            if matches(self.patterns.get(pattern, pattern), name):
                is_listed = True
                yield inner
        if not is_listed:
            yield schema.get("additionalProperties", True)


def matches(pattern: str, name: str) -> bool:
    """Return whether a pattern is found in a name; True when Python cannot read the pattern."""
    try:
        return re.search(pattern, name) is not None
    except (re.error, OverflowError, RecursionError):
        return True


def _state(schemas: list[Any]) -> State | None:
    """The state of a value that satisfies all of these; None if one of them is false."""
    if any(schema is False for schema in schemas):
        return None
    return State(id(schema) for schema in schemas if schema is not True)


def _join(parts: list[list[State]]) -> list[State]:
    result: list[State] = [State()]
    for part in sorted(parts, key=len):
        if len(result) * len(part) > MAX_ALTERNATIVES:
            raise ConfigError("combines too many alternatives with each other; use fewer")
        result = [one | other for one in result for other in part]
    return list(dict.fromkeys(result))


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _inner(schema: Mapping[str, Any], *, with_definitions: bool = True) -> Iterator[dict[str, Any]]:
    """The schemas directly inside a schema."""
    maps = ("properties", "patternProperties") + (("$defs", "definitions") if with_definitions else ())
    for key in ("items", "additionalProperties"):
        yield from (one for one in [schema.get(key)] if isinstance(one, dict))
    for key in ("anyOf", "oneOf", "allOf", "prefixItems"):
        yield from (one for one in schema.get(key, ()) if isinstance(one, dict))
    for key in maps:
        yield from (one for one in schema.get(key, {}).values() if isinstance(one, dict))


def target(root: dict[str, Any], reference: str) -> Any:
    """The schema that a checked reference leads to."""
    value: Any = root
    for part in reference.split("/")[1:]:
        key = part.replace("~1", "/").replace("~0", "~")
        value = value[int(key)] if isinstance(value, list) else value[key]
    return value


def inner_schemas(root: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A schema and all schemas in it."""
    stack = [root]
    while stack:
        schema = stack.pop()
        yield schema
        stack += _inner(schema)
