"""The tree of an answer: the value, set, interval, relation or words that it states."""

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from shoestring.tasks.values.numerals import Numeral


@dataclass(frozen=True, slots=True)
class Node:
    """An operation and what it works on.

    Of numbers: `number` (a Numeral), `variable` (its name), `constant` (pi, e, i, infty), `sum`, `product`,
    `negative`, `inverse`, `quotient`, `power`, `root` (degree, radicand), `function` (name, argument),
    `factorial`, `binomial`, `either` (plus or minus), `percent`, `degrees`, `measure` (number, unit).

    Of others: `list` (the joint `and` or "", then parts in any order), `tuple` (opening, closing, parts; an
    interval too), `set`, `union`, `intersection`, `difference`, `relation` (signs, sides), `ratio`, `time`,
    `matrix` (rows), `based` (digits, base), `words`.
    """

    kind: str
    parts: tuple[Any, ...] = ()

    @property
    def literal(self) -> Numeral | None:
        """The numeral that it is, without its sign."""
        node: Node = self.parts[0] if self.kind == "negative" else self
        return node.parts[0] if node.kind == "number" else None


def number(value: int) -> Node:
    return Node("number", (Numeral(value=Fraction(value)),))
