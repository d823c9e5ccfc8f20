r"""Parse an answer into a tree, as a mathematician reads it: numbers, and lists, sets, relations of them.

`2\frac12` and `2 1/2` are mixed numbers; `10^19` and `10^-19` have the whole exponent, `\frac12` and `\sqrt2`
take one digit, as LaTeX does; `\sin 2x` takes the product. Words after a number are its unit.
"""

import re

from shoestring.tasks.values.parse_numbers import NumberParser
from shoestring.tasks.values.tokens import BrokenLatex, Unread, tokens
from shoestring.tasks.values.tree import Node

RELATIONS = ("=", "<", ">", "le", "ge", "ne", "in", "approx")
SEPARATORS = (",", ";", "and", "or")
CLOSING = {"(": ")]", "[": ")]", "{": "}", "langle": ("rangle",), "lfloor": ("rfloor",), "lceil": ("rceil",)}
TIME = re.compile(r"(?:[01]?[0-9]|2[0-4]):[0-5][0-9]")


def parse(text: str, *, groups: bool = True) -> Node:
    """The tree of an answer; `groups` as in `tokens`.

    Raises BrokenLatex for what LaTeX could not print, and Unread for what is no value known here.
    """
    parser = _AnswerParser(tokens(text, groups=groups))
    node = parser.answer()
    if parser.next is not None:
        raise Unread(f"no value goes on with {parser.next.text}")
    return node


class _AnswerParser(NumberParser):
    """One pass over the tokens, with what holds several numbers."""

    def answer(self) -> Node:
        """Parts with separators between them; `1, 2, and 3` is a list of three."""
        parts, joint = [self.part()], ""
        while self.sees(*SEPARATORS):
            while self.sees(*SEPARATORS):
                mark = self.take().text
                joint = "or" if "or" in (joint, mark) else mark
            if self.next is None or self.next.kind == "close":
                break
            parts.append(self.part())
        return parts[0] if len(parts) == 1 else Node("list", (joint, *parts))

    def part(self) -> Node:
        """A relation, a ratio, or one side of these."""
        if self.sees("=", "approx"):
            self.take()
        sides, signs = [self._name() or self.ratio()], []
        while self.sees(*RELATIONS):
            signs.append(self.take().text)
            sides.append(self.ratio())
        return Node("relation", (tuple(signs), tuple(sides))) if signs else sides[0]

    def _name(self) -> Node | None:
        """The thing that an equation gives the value of, such as f(x) or P(X > 3); else None."""
        if not (self.sees(kind="variable") and self.sees("(", kind="open", ahead=1)):
            return None
        depth, at = 0, self.at
        for at in range(self.at + 1, len(self.tokens)):
            depth += {"open": 1, "close": -1}.get(self.tokens[at].kind, 0)
            if not depth:
                break
        if depth or at + 1 == len(self.tokens) or self.tokens[at + 1].text not in ("=", "approx"):
            return None
        name = "".join(token.text for token in self.tokens[self.at : at + 1])
        self.at = at + 1
        return Node("variable", (name,))

    def ratio(self) -> Node:
        if self.sees(kind="number") and self.sees(":", ahead=1) and self.sees(kind="number", ahead=2):
            hours, minutes = self.tokens[self.at].text, self.tokens[self.at + 2].text
            if TIME.fullmatch(f"{hours}:{minutes}"):
                self.at += 3
                return Node("time", (int(hours), int(minutes)))
        sides = [self.union()]
        while self.sees(":"):
            self.take()
            sides.append(self.union())
        if len(sides) > 1 and sides[0].kind == "words":
            return sides[-1]  # "Answer: 5"
        return Node("ratio", tuple(sides)) if len(sides) > 1 else sides[0]

    def union(self) -> Node:
        node = self.sum()
        while self.sees("cup", "cap") or self.sees("setminus", kind="command"):
            kind = {"cup": "union", "cap": "intersection"}.get(self.take().text, "difference")
            node = Node(kind, (node, self.sum()))
        return node

    def bracket(self, opening: str) -> Node:
        """The part in brackets: one value, or a tuple, an interval or a set."""
        if self.next is not None and self.next.kind == "close":
            self.take()
            if opening == "{":
                return Node("set")
            raise Unread("nothing in brackets") if opening != "group" else BrokenLatex("an empty group")
        in_bars, self.in_bars = self.in_bars, False
        node = self.answer()
        self.in_bars = in_bars
        if opening == "group" and self.sees("over", kind="command"):
            self.take()
            node = Node("quotient", (node, self.answer()))
        closing = self.take()
        if closing.kind != "close" or (closing.text not in CLOSING.get(opening, ("group",))):
            raise Unread(f"{opening} and {closing.text}")
        parts = node.parts[1:] if node.kind == "list" else (node,)
        if opening == "{":
            return Node("set", tuple(parts))
        if opening in ("lfloor", "lceil"):
            return Node("function", (opening[1:], node))
        if opening == "group":
            return node
        brackets = ("(", ")") if opening == "langle" else (opening, closing.text)
        return node if len(parts) == 1 else Node("tuple", (*brackets, *parts))

    def matrix(self, environment: str) -> Node:
        if environment == "cases":
            return self._cases()
        if environment.rstrip("*") not in ("matrix", "pmatrix", "bmatrix", "Bmatrix", "array", "smallmatrix"):
            raise Unread(environment)
        rows: list[tuple[Node, ...]] = []
        row: list[Node] = []
        while True:
            row.append(self.sum())
            token = self.take()
            if token.text == "&":
                continue
            rows.append(tuple(row))
            row = []
            if token.text == "\\" and not (self.next is not None and self.next.text.startswith("end{")):
                continue
            if token.text == "\\":
                token = self.take()
            if token.text != f"end{{{environment}}}":
                raise BrokenLatex("a matrix does not end")
            return Node("matrix", tuple(rows))

    def _cases(self) -> Node:
        """Equations in one brace, which hold together; cases with conditions are no value known here."""
        parts = [self.part()]
        while self.sees("\\", ",", ";"):
            self.take()
            if not self.sees("end{cases}", kind="command"):
                parts.append(self.part())
        if self.take().text != "end{cases}":
            raise Unread("cases with conditions")
        return Node("list", ("and", *parts))
