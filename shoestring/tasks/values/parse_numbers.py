r"""Parse the numbers in an answer: sums, products, powers, roots, functions, and the units after them."""

import re

from shoestring.tasks.values.numerals import Numeral, numeral
from shoestring.tasks.values.parse_functions import FunctionParser
from shoestring.tasks.values.tokens import FUNCTIONS, BrokenLatex, Token, Unread
from shoestring.tasks.values.tree import Node
from shoestring.tasks.values.units import unit_name

MAX_DEPTH = 40
LARGEST_BASE, LARGEST_MODULUS = 36, 10**100
# The arguments of \\frac when they are integers: in groups, written | here, or one digit each.
TWO_DIGITS = re.compile(r"(?:\|([0-9]{1,99})\||([0-9]))(?:\|([0-9]{1,99})\||([0-9]))")
QUALIFIERS = frozenset(
    """
about approximately approx roughly exactly the answer is a an total of nearly equals equal to""".split()  # noqa: SIM905
)
ACCENTS = ("hat", "vec", "bar", "tilde", "overrightarrow", "overleftrightarrow", "overline", "widehat")
FIGURES = ("angle", "measuredangle", "triangle")
GREEK = frozenset(
    """
alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu nu xi rho sigma tau
upsilon phi varphi chi psi omega Gamma Delta Theta Lambda Xi Sigma Upsilon Phi Psi Omega ell""".split()  # noqa: SIM905
)


class NumberParser(FunctionParser):
    """One pass over the tokens: each method reads what its name says and stands after it."""

    def bracket(self, opening: str) -> Node:
        """The part in brackets, after the opening one."""
        raise NotImplementedError

    def matrix(self, environment: str) -> Node:
        """A matrix, after its beginning."""
        raise NotImplementedError

    def sum(self) -> Node:
        terms: list[Node] = []
        while True:
            sign = self.take().text if self.sees("+", "-", "pm", "mp") else ""
            if sign in ("pm", "mp"):
                term = self.term()
                terms = [Node("either", (sign, Node("sum", tuple(terms)), term))]
            elif sign or not terms:
                terms.append(Node("negative", (self.term(),)) if sign == "-" else self.term())
            if not self.sees("+", "-", "pm", "mp") or self.sees(kind="word", ahead=1):
                return terms[0] if len(terms) == 1 else Node("sum", tuple(terms))

    def term(self) -> Node:
        """A product and, after it, a unit; or words."""
        words = self.words()
        currency = unit_name(words)
        if words and (self.next is None or not self.starts_factor()):
            return Node("words", tuple(words))
        if words and currency is None and not all(word.lower() in QUALIFIERS for word in words):
            raise Unread("words before a number")
        node = self.product()
        if self.sees("pmod", "bmod", kind="command"):
            self.take()
            modulus = self.argument().literal
            if modulus is None or modulus.value > LARGEST_MODULUS:
                raise Unread("a modulus that is no number")
            return Node("measure", (node, f"mod {modulus.value}"))
        unit = self.unit()
        if unit or currency:
            node = Node("measure", (node, unit_name(unit) if unit else currency))
        return node

    def product(self) -> Node:
        last = self.signed()
        factors = [last]
        while True:
            if self.sees("*", "/"):
                if self.sees(kind="word", ahead=1):
                    break  # of a unit
                is_over = self.take().text == "/"
                last = self.signed()
                factors.append(Node("inverse", (last,)) if is_over else last)
            elif self._is_mixed(last):
                if len(factors) > 1:
                    raise Unread("a product with a mixed number")
                last = self._with_signs(Node("sum", (last, self.fraction())))
                factors = [last]
            elif self.starts_factor() and not self.sees(kind="word") and not self.sees_unit_fraction():
                if self.sees(kind="number") and last.kind in ("number", "variable", "power"):
                    raise Unread("a number follows a number")
                last = self.power()
                factors.append(last)
            else:
                break
        return factors[0] if len(factors) == 1 else Node("product", tuple(factors))

    def fraction(self) -> Node:
        """The fraction of a mixed number."""
        if self.sees(kind="number"):
            over = self.primary()
            self.take()
            return Node("quotient", (over, self.primary()))
        return self.primary()

    def signed(self) -> Node:
        signs = 0
        while self.sees("-", "+"):
            signs += self.take().text == "-"
        return Node("negative", (self.power(),)) if signs % 2 else self.power()

    def power(self) -> Node:
        """A primary with the signs after it."""
        return self._with_signs(self.primary())

    def _with_signs(self, node: Node) -> Node:
        """A number with what follows it: a power, factorials, percent and degrees."""
        has_power = False
        while True:
            if self.sees("^") and self._takes_circle():
                node = self._degrees(node)
            elif self.sees("circ", kind="command"):
                self.take()
                node = self._degrees(node)
            elif self.sees("^"):
                self.take()
                if self.sees("^") or has_power:
                    raise BrokenLatex("two exponents")
                has_power = True
                node = Node("power", (node, self.exponent()))
            elif self.sees("!"):
                self.take()
                node = Node("factorial", (node,))
            elif self.sees("%"):
                self.take()
                node = Node("percent", (node,))
            else:
                return node

    def _degrees(self, node: Node) -> Node:
        """Degrees of an angle, or of temperature."""
        if self.sees("C", "F", kind="variable"):
            return Node("measure", (node, f"degree {self.take().text}"))
        return Node("degrees", (node,))

    def exponent(self) -> Node:
        if self.sees("-", "+"):
            return self.signed()
        if self.sees("*", "'"):
            raise Unread("a mark, not a power")
        return self.group_or_primary()

    def primary(self) -> Node:
        """One number, variable, group, bracket, command or absolute value."""
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise Unread("nested too deeply")
        node = self._primary(self.take())
        self.depth -= 1
        return node

    def _primary(self, token: Token) -> Node:
        if token.kind == "number":
            return self._number(token)
        if token.kind == "variable":
            return self._variable(token.text)
        if token.kind == "open":
            return self.bracket(token.text)
        if token.kind == "command":
            return self._command(token.text)
        if token.text == "|" and not self.in_bars:
            self.in_bars = True
            node = self.sum()
            self.in_bars = False
            if not self.sees("|"):
                raise Unread("a bar is not closed")
            self.take()
            return Node("function", ("abs", node))
        raise Unread(f"no value begins with {token.text}")

    def argument(self) -> Node:
        r"""A group, or one character: `\frac12` is a half."""
        if self.next is None or self.next.kind == "close" or self.sees("&", "\\"):
            raise BrokenLatex("an argument is missing")
        token = self.next
        if token.kind == "number" and len(token.text) > 1 and token.text.isdigit():
            rest = token.text[1:]
            self.tokens[self.at] = Token("number", rest, _digits(rest))
            return Node("number", (_digits(token.text[0]),))
        return self.group_or_primary()

    def group_or_primary(self) -> Node:
        if self.next is None or self.next.kind == "close":
            raise BrokenLatex("an argument is missing")
        return self.primary()

    def _number(self, token: Token) -> Node:
        assert token.number is not None
        if self.sees("_"):
            self.take()
            base = self.argument() if not self.sees(kind="number") else self.primary()
            if base.literal is None or not 2 <= base.literal.value <= LARGEST_BASE:
                raise Unread("an index of a number")
            if base.literal.value == 10:
                return Node("number", (token.number,))
            return Node("based", (token.text.replace(",", "").lstrip("0"), str(base.literal.value)))
        return Node("number", (token.number,))

    def _variable(self, name: str) -> Node:
        if self.sees("_"):
            start = self.at + 1
            self.take()
            self.argument()
            name += "_" + "".join(t.text for t in self.tokens[start : self.at] if t.text != "group")
        while self.sees("'"):
            name += self.take().text
        return Node("constant", (name,)) if name in ("e", "i") else Node("variable", (name,))

    def _command(self, name: str) -> Node:
        if name in ("frac", "binom"):
            over = self.argument()
            return Node("quotient" if name == "frac" else "binomial", (over, self.argument()))
        if name == "sqrt":
            return self.root()
        if name in FUNCTIONS:
            return self.function(name)
        if name in ("pi", "infty"):
            return Node("constant", (name,))
        if name == "emptyset":
            return Node("set")
        if name in GREEK:
            return self._variable(name)
        if name in FIGURES:
            letters = ""
            while self.sees(kind="variable"):
                letters += self.take().text
            return Node("variable", (f"{name} {letters}",))
        if name in ACCENTS:
            start = self.at
            self.argument()
            return self._variable(f"{name} " + "".join(token.text for token in self.tokens[start : self.at]))
        if name.startswith("begin{"):
            return self.matrix(name[6:-1])
        if name.startswith("end{"):
            raise BrokenLatex("an environment ends that did not begin")
        raise Unread(f"\\{name}")

    def _takes_circle(self) -> bool:
        r"""Take `^\circ` or `^{\circ}`, if that comes next."""
        for skip in (1, 2):
            if self.sees("circ", kind="command", ahead=skip):
                if skip == 2 and not (
                    self.sees("group", kind="open", ahead=1) and self.sees("group", kind="close", ahead=3)
                ):
                    return False
                self.at += 2 if skip == 1 else 4
                return True
        return False

    def _is_mixed(self, last: Node) -> bool:
        r"""Return whether a fraction of two integers below 1 follows an integer: 2\frac12, 2 1/2."""
        if last.kind != "number" or last.parts[0].step is not None or last.parts[0].value.denominator != 1:
            return False
        if self.sees(kind="number") and self.sees("/", ahead=1) and self.sees(kind="number", ahead=2):
            over, under = self.tokens[self.at].text, self.tokens[self.at + 2].text
        elif self.sees("frac", kind="command"):
            texts = [token.text for token in self.tokens[self.at + 1 : self.at + 7]]
            match = TWO_DIGITS.match("".join("|" if text == "group" else text for text in texts))
            over, under = (match[1] or match[2], match[3] or match[4]) if match else ("", "")
        else:
            return False
        return over.isdecimal() and under.isdecimal() and int(over) < int(under)


def _digits(text: str) -> Numeral:
    value = numeral(text)
    assert value is not None
    return value
