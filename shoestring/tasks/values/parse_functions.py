r"""Parse functions and roots: `\sin^2 x`, `\log_2 8`, `\sqrt[3]{x}`."""

from shoestring.tasks.values.cursor import Cursor
from shoestring.tasks.values.tokens import FUNCTIONS, BrokenLatex, Unread
from shoestring.tasks.values.tree import Node, number

INVERSE = {"sin": "arcsin", "cos": "arccos", "tan": "arctan"}


class FunctionParser(Cursor):
    """A cursor that reads functions, after their names; a subclass reads what they are applied to."""

    def answer(self) -> Node:
        """A whole answer, such as the one in brackets."""
        raise NotImplementedError

    def argument(self) -> Node:
        """A group, or one character."""
        raise NotImplementedError

    def sum(self) -> Node:
        """A sum or difference."""
        raise NotImplementedError

    def signed(self) -> Node:
        """A power with signs before it."""
        raise NotImplementedError

    def power(self) -> Node:
        """A power."""
        raise NotImplementedError

    def root(self) -> Node:
        """A root with its degree, after its name."""
        degree = number(2)
        if self.sees("[", kind="open"):
            self.take()
            degree = self.sum()
            if not self.sees("]", kind="close"):
                raise BrokenLatex("the degree of a root is not closed")
            self.take()
        return Node("root", (degree, self.argument()))

    def function(self, name: str) -> Node:
        """A function with its base, its power and what it is applied to, after its name."""
        base = power = None
        if name == "log" and self.sees("_"):
            self.take()
            base = self.argument()
        if self.sees("^"):
            self.take()
            power = self.exponent()
            if power.kind == "negative" and name in INVERSE:
                name, power = INVERSE[name], None
        node = Node("function", (name, self._operand()))
        if base is not None:
            node = Node("quotient", (node, Node("function", (name, base))))
        return node if power is None else Node("power", (node, power))

    def _operand(self) -> Node:
        r"""The argument of a function: what is in brackets, or a product, which another function ends."""
        if self.next is not None and self.next.kind == "open":
            if self.next.text in ("(", "["):
                self.take()
                node = self.answer()
                if self.take().kind != "close":
                    raise Unread("a bracket is not closed")
                return node
            return self.power()
        factors = [self.signed()]
        while self.starts_factor() and not self.sees(kind="open") and not self._sees_function():
            factors.append(self.power())
        return factors[0] if len(factors) == 1 else Node("product", tuple(factors))

    def _sees_function(self) -> bool:
        return (
            self.next is not None and self.next.kind == "command" and self.next.text in FUNCTIONS - {"sqrt"}
        )
