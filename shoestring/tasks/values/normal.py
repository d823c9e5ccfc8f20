"""One form for what can be written in several ways: assignments, intervals, plus-or-minus, unions."""

from shoestring.tasks.values.compute import variables
from shoestring.tasks.values.tree import Node, number

NUMBERS = frozenset(
    """
number variable constant sum product negative inverse quotient power root function factorial binomial
percent degrees""".split()  # noqa: SIM905
)
NUMERAL_WORDS = "zero one two three four five six seven eight nine ten eleven twelve".split()  # noqa: SIM905
FLIP = {"<": ">", ">": "<", "le": "ge", "ge": "le"}
INFINITY = Node("constant", ("infty",))
REALS = Node("tuple", ("(", ")", Node("negative", (INFINITY,)), INFINITY))


def normal(node: Node) -> Node:
    """The tree in a form that is easier to compare: assignments, intervals, lists of both signs."""
    if node.kind == "relation":
        return _relation(*node.parts)
    if node.kind == "list":
        return _list(node.parts[0], [normal(part) for part in node.parts[1:]])
    if node.kind == "words":
        return _words(node)
    if node.kind == "negative" and node.parts[0].kind in ("percent", "degrees", "measure"):
        value, *unit = node.parts[0].parts
        return Node(node.parts[0].kind, (normal(Node("negative", (value,))), *unit))
    if node.kind == "matrix" and len(node.parts) == len(node.parts[0]) == 1:
        return normal(node.parts[0][0])
    if node.kind == "set":
        return Node("set", tuple(part for item in node.parts for part in _both_signs(normal(item))))
    if node.kind == "union":
        return Node("union", tuple(part for side in node.parts for part in _united(normal(side))))
    if (both := _both_signs(node)) != (node,):
        return Node("list", both)
    if node.kind == "tuple":
        return Node("tuple", (*node.parts[:2], *(normal(part) for part in node.parts[2:])))
    return node


def _words(node: Node) -> Node:
    """One letter is a choice or a variable, and all real numbers are an interval."""
    if len(node.parts) == 1 and len(node.parts[0]) == 1:
        return Node("variable", node.parts)
    if len(node.parts) == 1 and (name := node.parts[0].lower()) in NUMERAL_WORDS:
        return number(NUMERAL_WORDS.index(name))
    words = [word.lower() for word in node.parts if word.lower() not in ("a", "an", "the")]
    is_reals = [word for word in words if word not in ("all", "set", "of")] in (
        ["real", "numbers"],
        ["reals"],
    )
    return REALS if is_reals else Node("words", tuple(words))


def _relation(signs: tuple[str, ...], sides: tuple[Node, ...]) -> Node:
    if set(signs) <= {"=", "approx"}:
        if "approx" in signs[1:] or (signs[0] == "approx" and not _is_name(sides[0])):
            at = signs.index("approx", 1 if _is_name(sides[0]) and len(signs) > 1 else 0)
            return normal(Node("relation", (signs[:at], sides[: at + 1]))) if at else normal(sides[0])
        if _is_name(sides[0]) or sides[0].kind == "words":
            return _assigned(sides[0], normal(sides[-1]))
        if len(sides) == 2 and _is_name(sides[1]):
            return _assigned(sides[1], normal(sides[0]))
        if not any(map(variables, sides)) and sides[0].kind in NUMBERS:
            return normal(sides[-1])  # 3 + 4 = 7
        if len(sides) == 2:
            return Node("equation", sides)
    elif signs == ("in",) and _is_name(sides[0]):
        return _assigned(sides[0], normal(sides[1]))
    elif set(signs) <= set(FLIP):
        return _inequality(signs, sides)
    return Node("relation", (signs, sides))


def _assigned(name: Node, value: Node) -> Node:
    label = None if name.kind == "words" else name
    if value.kind == "list":
        return Node("list", tuple(_assigned(name, part) for part in value.parts))
    return Node("assignment", (label, value, Node("sum", (name, Node("negative", (value,))))))


def _is_name(node: Node) -> bool:
    """Return whether it is a variable, or a function of variables as it is written: f(x)."""
    if node.kind == "product":
        return all(part.kind == "variable" or _is_name(part) for part in node.parts) and (
            node.parts[0].kind == "variable" and len(node.parts[0].parts[0]) <= 2
        )
    if node.kind == "function":
        return node.parts[0] == "abs" and node.parts[1].kind == "product" and _is_name(node.parts[1])
    if node.kind == "quotient":  # of two lengths, such as AB over CD
        return all(_is_name(part) and part.kind == "product" for part in node.parts)
    if node.kind in ("tuple", "ratio"):
        parts = node.parts[2:] if node.kind == "tuple" else node.parts
        return all(part.kind == "variable" for part in parts)
    return node.kind == "variable"


def _inequality(signs: tuple[str, ...], sides: tuple[Node, ...]) -> Node:
    """An interval when one variable is between bounds, else an inequality of two sides."""
    if signs[0] in (">", "ge"):
        signs, sides = tuple(FLIP[sign] for sign in reversed(signs)), tuple(reversed(sides))
    if any(sign in (">", "ge") for sign in signs):
        return Node("relation", (signs, sides))
    ends = [sign == "le" for sign in signs]
    is_name = [_is_name(side) for side in sides]
    if len(sides) == 2 and sum(is_name) == 1 and not variables(sides[is_name.index(False)]):
        at = is_name.index(True)
        low, high = (sides[0], INFINITY) if at else (Node("negative", (INFINITY,)), sides[1])
        brackets = ("[" if at and ends[0] else "(", "]" if not at and ends[0] else ")")
        interval = Node("tuple", (*brackets, low, high))
        return Node("assignment", (sides[at], interval, Node("inequality", (signs[0], *sides))))
    if len(sides) == 3 and is_name == [False, True, False]:
        brackets = ("[" if ends[0] else "(", "]" if ends[1] else ")")
        return _assigned(sides[1], Node("tuple", (*brackets, sides[0], sides[2])))
    return Node("inequality", (signs[0], *sides)) if len(sides) == 2 else Node("relation", (signs, sides))


def _list(joint: str, parts: list[Node]) -> Node:
    """A list; intervals of one variable, as in `x < 1 or x > 2`, are united."""
    intervals = [part for part in parts if _is_interval(part)]
    if len(intervals) == len(parts) > 1 and joint != "and":
        union = Node("union", tuple(part.parts[1] for part in intervals))
        return Node("assignment", (parts[0].parts[0], union, None))
    return Node(
        "list", tuple(piece for part in parts for piece in (part.parts if part.kind == "list" else (part,)))
    )


def _is_interval(node: Node) -> bool:
    return node.kind == "assignment" and node.parts[1].kind == "tuple"


def _united(node: Node) -> tuple[Node, ...]:
    return node.parts if node.kind == "union" else (node,)


def _both_signs(node: Node) -> tuple[Node, ...]:
    """A number with plus or minus in it as two numbers, else itself."""
    if node.kind == "list":
        return node.parts
    if not _has(node, "either"):
        return (node,)
    return tuple(_signed(node, sign) for sign in (1, -1))


def _has(node: Node, kind: str) -> bool:
    return node.kind == kind or any(isinstance(part, Node) and _has(part, kind) for part in node.parts)


def _signed(node: Node, sign: int) -> Node:
    if node.kind != "either":
        return Node(node.kind, tuple(_signed(p, sign) if isinstance(p, Node) else p for p in node.parts))
    mark, before, term = node.parts
    is_negative = (mark == "mp") == (sign > 0)
    term = _signed(term, sign)
    return Node("sum", (_signed(before, sign), Node("negative", (term,)) if is_negative else term))
