r"""Compare two answers by value.

What does not count: the look (fonts, spaces, `\dfrac`), the order in a list or set, a unit that only one side
has, the name in `x = 5` when the other side only says 5. What counts: the order in a tuple, the brackets of
an interval, units that differ, letters of variables. `n%` is n/100 or, for n of 1 and more, n; `90^\circ` is
90 or pi/2. A decimal with six or more significant digits is any number that it rounds; others are exact.
"""

from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction

from shoestring.tasks.values.compute import (
    Number,
    digits,
    is_close,
    is_real,
    is_within,
    ratio,
    values,
    variables,
)
from shoestring.tasks.values.tree import Node

ROUNDED_DIGITS = 6
"""Significant digits from which a decimal may stand for a number that it rounds."""
MAX_PARTS = 50


def same(right: Node, node: Node) -> bool:
    """Return whether two answers are equal. Raises Unread for numbers that are too large to compare."""
    if right == node:
        return True
    if right.kind == "assignment" or node.kind == "assignment":
        return _same_assignment(right, node)
    if "measure" in (right.kind, node.kind):
        return _same_measure(right, node)
    if {right.kind, node.kind} & {"percent", "degrees"} and right.kind != node.kind:
        return any(same(r, n) for r in meanings(right) for n in meanings(node))
    if right.kind in ("list", "set", "union") and node.kind in ("list", "set", "union"):
        if right.kind == node.kind == "set":
            return _covers(right.parts, node.parts) and _covers(node.parts, right.parts)
        is_union = right.kind == "union"
        return is_union == (node.kind == "union") and _same_parts(right.parts, node.parts, is_ordered=False)
    if node.kind == "equation" and right.kind not in STRUCTURES:  # what is a + b? a + b = 10
        return len(variables(node.parts[0])) > 1 and same(right, node.parts[1])
    if "set" in (right.kind, node.kind):
        one, other = (right, node) if right.kind == "set" else (node, right)
        return len(one.parts) == 1 and other.kind not in STRUCTURES and same(one.parts[0], other)
    if {right.kind, node.kind} == {"tuple", "list"}:
        tuple_ = right if right.kind == "tuple" else node
        other = node if tuple_ is right else right
        return tuple_.parts[:2] == ("(", ")") and _same_parts(tuple_.parts[2:], other.parts, is_ordered=True)
    if right.kind == "based" and node.kind == "number":
        return _same_based(right, node)
    if right.kind != node.kind and {right.kind, node.kind} & STRUCTURES:
        return False
    rule = RULES.get(right.kind, _same_number)
    return rule(right, node)


def _same_assignment(right: Node, node: Node) -> bool:
    if right.kind == node.kind:
        if right.parts[0] == node.parts[0] or None in (right.parts[0], node.parts[0]):
            return same(right.parts[1], node.parts[1])
        if _names_function(right.parts[0], node.parts[0]) and same(right.parts[1], node.parts[1]):
            return True
        zeros = [right.parts[2], node.parts[2]]
        return all(zero is not None and zero.kind == "sum" for zero in zeros) and _same_zeros(*zeros)
    assignment, other = (right, node) if right.kind == "assignment" else (node, right)
    form = assignment.parts[2]
    if other.kind == "equation":
        return form is not None and form.kind == "sum" and _same_zeros(form, difference(other))
    if other.kind == "inequality":
        return form is not None and form.kind == "inequality" and _same_inequality(form, other)
    return same(*((assignment.parts[1], other) if assignment is right else (other, assignment.parts[1])))


def _names_function(one: Node, other: Node) -> bool:
    """Return whether one name is y and the other a function, as in y = 3x and f(x) = 3x."""
    names = sorted(str(name.parts[0]) for name in (one, other) if name.kind == "variable")
    return len(names) == 2 and names[1] == "y" and names[0].endswith(")")


def _same_measure(right: Node, node: Node) -> bool:
    units = [n.parts[1] if n.kind == "measure" else None for n in (right, node)]
    if None not in units and units[0] != units[1]:
        return False
    pair = [n.parts[0] if n.kind == "measure" else n for n in (right, node)]
    return same(pair[0], pair[1])


def meanings(node: Node) -> Iterator[Node]:
    """A percentage or an angle, with its sign and without."""
    if node.kind not in ("percent", "degrees"):
        yield node
        return
    yield Node("sum", (node,))
    numbers = values(node.parts[0])
    if node.kind == "degrees" or (isinstance(numbers[0], Fraction) and abs(numbers[0]) >= 1):
        yield node.parts[0]


def _same_parts(right: Sequence[Node], parts: Sequence[Node], *, is_ordered: bool) -> bool:
    if len(right) != len(parts) or len(right) > MAX_PARTS:
        return False
    if is_ordered:
        return all(map(same, right, parts))
    rest = list(parts)
    for part in right:
        match = next((number for number, other in enumerate(rest) if same(part, other)), None)
        if match is None:
            return False
        del rest[match]
    return True


def _covers(parts: Sequence[Node], others: Sequence[Node]) -> bool:
    """Return whether each of the others is among the parts."""
    return len(parts) <= MAX_PARTS and all(any(same(part, other) for part in parts) for other in others)


def _same_tuple(right: Node, node: Node) -> bool:
    return right.parts[:2] == node.parts[:2] and _same_parts(right.parts[2:], node.parts[2:], is_ordered=True)


def _same_matrix(right: Node, node: Node) -> bool:
    rows = zip(right.parts, node.parts, strict=False)
    return len(right.parts) == len(node.parts) and all(_same_parts(*pair, is_ordered=True) for pair in rows)


def _same_ratio(right: Node, node: Node) -> bool:
    if len(right.parts) != len(node.parts):
        return False
    pairs = zip(right.parts, node.parts, strict=True)
    over = [Node("quotient", pair) for pair in pairs]
    return right == node or all(same(over[0], other) for other in over[1:])


def _same_text(right: Node, node: Node) -> bool:
    return [word.lower() for word in right.parts] == [word.lower() for word in node.parts]


def _same_equation(right: Node, node: Node) -> bool:
    return _same_zeros(difference(right), difference(node))


def _same_inequality(right: Node, node: Node) -> bool:
    factor = _factor(difference(right, 1), difference(node, 1))
    return right.parts[0] == node.parts[0] and factor is not None and is_real(factor) and bool(factor > 0)


def difference(node: Node, first: int = 0) -> Node:
    return Node("sum", (node.parts[first], Node("negative", (node.parts[first + 1],))))


def _same_zeros(right: Node, node: Node) -> bool:
    return _factor(right, node) is not None


def _factor(right: Node, node: Node) -> Fraction | None:
    """The number by which one expression is the other everywhere; None without one."""
    if variables(right) != variables(node):
        return None
    pairs = [
        (r, n) for r, n in zip(values(right), values(node), strict=True) if r is not None and n is not None
    ]
    if len(pairs) < 2 or any(not r or not n for r, n in pairs):
        return None
    ratios = [ratio(r, n) for r, n in pairs]
    return ratios[0] if all(is_close(ratios[0], other) for other in ratios[1:]) else None


def _same_number(right: Node, node: Node) -> bool:
    """Equal at the points where all variables are positive, and at the others where both are real."""
    one, other = values(right), values(node)
    if len(one) == len(other) == 1 and (_rounds(right, other[0]) or _rounds(node, one[0])):
        return True
    points = max(len(one), len(other))
    pairs = [(v[point % len(v)], w[point % len(w)]) for point in range(points) for v, w in ((one, other),)]
    if any(v is None or w is None or not is_close(v, w) for v, w in pairs[:2]):
        return False
    return all(
        is_close(v, w) for v, w in pairs[2:] if v is not None and w is not None and is_real(v) and is_real(w)
    )


def _rounds(node: Node, value: Number | None) -> bool:
    """Return whether a decimal of six or more significant digits is this number, rounded or cut."""
    literal = node.literal
    if literal is None or literal.step is None or literal.digits < ROUNDED_DIGITS:
        return False
    if value is None or not is_real(value):
        return False
    own = values(node)[0]
    return own is not None and is_within(own, value, literal.step)


def _same_tree(right: Node, node: Node) -> bool:
    return right == node


def _same_based(right: Node, node: Node) -> bool:
    """A numeral with its base, or with the same digits and none."""
    if node.kind == "number":
        name = digits(node.parts[0].value)
        return node.parts[0].step is None and name == right.parts[0]
    return right == node


RULES: dict[str, Callable[[Node, Node], bool]] = {
    "tuple": _same_tuple, "matrix": _same_matrix, "ratio": _same_ratio, "words": _same_text,
    "equation": _same_equation, "inequality": _same_inequality, "relation": _same_tree, "based": _same_based,
    "intersection": _same_tree, "difference": _same_tree, "time": _same_tree,
}  # fmt: skip
STRUCTURES = frozenset(RULES) | {"list", "set", "union"}
