"""Compute a number's tree: exactly with fractions while that is possible, else to 60 digits; always soon.

Expressions with variables are computed at fixed points: two expressions are the same when they agree there
(the test of Schwartz and Zippel). What would take long, such as 9^(9^9), raises Unread.
"""

import hashlib
from collections.abc import Callable, Mapping
from fractions import Fraction
from functools import cache, lru_cache
from math import comb, factorial, gcd, isqrt, lcm
from typing import Any

from shoestring.tasks.values.tokens import Unread
from shoestring.tasks.values.tree import Node

BITS = 220
MAX_EXACT_BITS = 50_000
MAX_ALL_BITS = 2_000_000
"""Bits of all fractions in one computation; beyond that it goes on with 60 digits."""
MAX_MAGNITUDE = 40
"""Binary magnitude of the largest exponent: 2^(2^40) can be held, 2^(2^(2^40)) cannot."""
MAX_FACTORIAL = 5_000
TINY_BITS = -150
"""A result below 2^-150 may be the error of a difference: it is computed once more with more digits."""
SIMPLE = 1_000_000
"""Largest denominator of a fraction that is known again in its digits."""
POINTS = 4
"""Points at which expressions are compared: at the first two all variables are positive."""

Number = Any  # Fraction, or a number of mpmath


@lru_cache(maxsize=512)
def values(node: Node) -> tuple[Number | None, ...]:
    """The value of a number's tree at each point, None where it has none; one value without variables.

    Raises Unread when it is no number, or too large.
    """
    names = variables(node)
    points = range(POINTS if names else 1)
    results = tuple(_value(node, {name: _at(name, point) for name in names}) for point in points)
    if all(value is None for value in results[:2]):
        raise Unread("no number")
    return results


def variables(node: Node) -> set[str]:
    """Names of the variables in a tree."""
    if node.kind == "variable":
        return {node.parts[0]}
    return {name for part in node.parts if isinstance(part, Node) for name in variables(part)}


def is_close(one: Number, other: Number, bits: int = 130) -> bool:
    """Return whether two values are equal: fractions exactly, others to 39 significant digits."""
    if isinstance(one, Fraction) and isinstance(other, Fraction):
        return one == other
    one, other, math = _float(one), _float(other), _math()
    if math.isinf(one) or math.isinf(other) or one == other:
        return bool(one == other)
    return bool(abs(one - other) <= math.ldexp(max(abs(one), abs(other)), -bits))


def is_within(one: Number, other: Number, step: Fraction) -> bool:
    """Return whether two real values differ by less than a step."""
    if isinstance(one, Fraction) and isinstance(other, Fraction):
        return abs(one - other) < step
    return bool(abs(_float(one) - _float(other)) < _float(step))


def ratio(one: Number, other: Number) -> Number:
    """One value divided by another, which is not 0."""
    if isinstance(one, Fraction) and isinstance(other, Fraction):
        return one / other
    return _float(one) / _float(other)


def is_real(value: Number) -> bool:
    return isinstance(value, Fraction) or not _math().im(value)


def digits(value: Number) -> str:
    """A value as text: a fraction exactly (a long one as a hash of it), others to 12 digits."""
    if isinstance(value, Fraction):
        long = _bits(value) > 1000
        return short_hash(f"{value.numerator:x}/{value.denominator:x}") if long else str(value)
    math = _math()
    text = math.nstr(math.re(value), 12)
    return text if is_real(value) else f"{text}{math.nstr(math.im(value), 12)}i"


def short_hash(text: str) -> str:
    """A name for a long text: equal texts have one."""
    return "#" + hashlib.sha256(text.encode()).hexdigest()[:16]


@cache
def _math(bits: int = BITS) -> Any:
    from mpmath import MPContext  # type: ignore[import-untyped]

    context = MPContext()
    context.prec = bits
    return context


def _at(name: str, point: int) -> Fraction:
    """The value of a variable at a point: a fraction that its name decides, positive at the first two."""
    code = hashlib.sha256(f"{name} {point}".encode()).digest()
    size = Fraction(300 + int.from_bytes(code[:2], "big") % 2000, 997)
    return -size if point >= 2 and (point == 2 or code[2] % 2) else size


def _value(node: Node, at: Mapping[str, Fraction]) -> Number | None:
    try:
        value = _Computation(at, _math()).of(node)
        if not isinstance(value, Fraction) and value and _math().mag(value) < TINY_BITS:
            again = _Computation(at, _math(2 * BITS)).of(node)
            if _math().mag(again) < _math().mag(value) - 60:
                return Fraction(0)
        return _as_fraction(value)
    except (ArithmeticError, ValueError, TypeError):
        return None


def _as_fraction(value: Number) -> Number:
    """A number that is a fraction of small numbers, to all of its digits, is that fraction."""
    math = _math()
    if isinstance(value, (Fraction, math.mpc)) or not value or not math.isfinite(value):
        return value
    if abs(math.mag(value)) > 60:
        return value
    sign, mantissa, exponent, _ = value._mpf_
    exact = Fraction(-mantissa if sign else mantissa) * Fraction(2) ** exponent
    simple = exact.limit_denominator(SIMPLE)
    return simple if abs(simple - exact) < abs(exact) / (1 << 180) else value


def _float(value: Number) -> Any:
    math = _math()
    return math.mpf(value.numerator) / value.denominator if isinstance(value, Fraction) else value


class _Computation:
    """The value of a tree at one point, with a precision."""

    def __init__(self, at: Mapping[str, Fraction], math: Any) -> None:
        self.at, self.math, self.bits = at, math, 0

    def of(self, node: Node) -> Number:
        rule = getattr(self, f"_{node.kind}", None)
        if rule is None:
            raise Unread(f"a {node.kind} is no number")
        return rule(*node.parts)

    def inexact(self, value: Number) -> Any:
        """A number of mpmath; real ones stay real."""
        if isinstance(value, Fraction):
            return self.math.mpf(value.numerator) / value.denominator
        return value

    def _number(self, numeral: Any) -> Number:
        return numeral.value

    def _variable(self, name: str) -> Number:
        return self.at[name]

    def _constant(self, name: str) -> Number:
        return {
            "pi": +self.math.pi, "e": +self.math.e, "i": self.math.mpc(0, 1), "infty": self.math.inf
        }[name]  # fmt: skip

    def _sum(self, *terms: Node) -> Number:
        total: Number = Fraction(0)
        for term in terms:
            total = self._add(total, self.of(term))
        return total

    def _negative(self, node: Node) -> Number:
        return -self.of(node)

    def _product(self, *factors: Node) -> Number:
        total: Number = Fraction(1)
        for factor in factors:
            total = self._times(total, self.of(factor))
        return total

    def _inverse(self, node: Node) -> Number:
        return self._one_over(self.of(node))

    def _quotient(self, over: Node, under: Node) -> Number:
        return self._times(self.of(over), self._one_over(self.of(under)))

    def _percent(self, node: Node) -> Number:
        return self._times(self.of(node), Fraction(1, 100))

    def _degrees(self, node: Node) -> Number:
        return self._times(self.of(node), self.math.pi / 180)

    def _root(self, degree: Node, node: Node) -> Number:
        order, value = self.of(degree), self.of(node)
        if not isinstance(order, Fraction) or order.denominator != 1 or not 2 <= order <= 1000:
            return self._raise(value, self._one_over(order))
        if is_real(value) and value < 0 and order % 2:
            return -self._raise(-value, 1 / order)
        return self._raise(value, 1 / order)

    def _power(self, base: Node, exponent: Node) -> Number:
        if base.kind == "constant" and base.parts[0] == "e":
            return self._function("exp", exponent)
        return self._raise(self.of(base), self.of(exponent))

    def _factorial(self, node: Node) -> Number:
        value = self.of(node)
        if isinstance(value, Fraction) and value.denominator == 1:
            if not 0 <= value <= MAX_FACTORIAL:
                raise Unread("a factorial that is too large")
            self.bits += 10 * int(value)
            return Fraction(factorial(int(value)))
        self._check(value, 10)
        return self.math.gamma(self.inexact(value) + 1)

    def _binomial(self, over: Node, under: Node) -> Number:
        n, k = self.of(over), self.of(under)
        if isinstance(n, Fraction) and isinstance(k, Fraction) and n.denominator == k.denominator == 1:
            if not 0 <= k <= n <= MAX_FACTORIAL:
                raise Unread("a binomial that is too large")
            return Fraction(comb(int(n), int(k)))
        self._check(n, 10)
        self._check(k, 10)
        return self.math.binomial(self.inexact(n), self.inexact(k))

    def _function(self, name: str, node: Node) -> Number:
        if name in ("max", "min", "gcd", "lcm"):
            parts = node.parts[1:] if node.kind == "list" else node.parts if node.kind == "set" else (node,)
            return self._of_many(name, [self.of(part) for part in parts])
        value = self.of(node)
        if name in ("floor", "ceil"):
            self._check(value, 1000)
            exact = value if isinstance(value, Fraction) else None
            floor = value.__floor__() if exact is not None else self.math.floor(value)
            ceil = value.__ceil__() if exact is not None else self.math.ceil(value)
            return Fraction(int(floor if name == "floor" else ceil))
        if name == "abs":
            return abs(value)
        if name == "exp" and value == 0:
            return Fraction(1)
        if name in ("log", "ln", "lg") and value == 1:
            return Fraction(0)
        self._check(value, MAX_MAGNITUDE if name in ("exp", "sinh", "cosh", "tanh") else 1000)
        return self._tidy(self._plain(name)(self.inexact(value)))

    def _of_many(self, name: str, numbers: list[Number]) -> Number:
        if name in ("gcd", "lcm"):
            if not numbers or any(not isinstance(n, Fraction) or n.denominator != 1 for n in numbers):
                raise Unread(f"a {name} of no integers")
            return Fraction((gcd if name == "gcd" else lcm)(*(int(n) for n in numbers)))
        if not numbers or not all(map(is_real, numbers)):
            raise Unread(f"a {name} of no numbers")
        return (max if name == "max" else min)(numbers)

    def _plain(self, name: str) -> Callable[[Any], Any]:
        names = {"ln": "log", "lg": "log10", "arcsin": "asin", "arccos": "acos", "arctan": "atan"}
        function: Callable[[Any], Any] = getattr(self.math, names.get(name, name))
        return function

    def _add(self, one: Number, other: Number) -> Number:
        if self._is_exact(one, other):
            return one + other
        return self._tidy(self.inexact(one) + self.inexact(other))

    def _times(self, one: Number, other: Number) -> Number:
        if self._is_exact(one, other):
            return one * other
        return self._tidy(self.inexact(one) * self.inexact(other))

    def _one_over(self, value: Number) -> Number:
        if value == 0:
            raise ZeroDivisionError
        return 1 / value

    def _raise(self, base: Number, exponent: Number) -> Number:
        if isinstance(exponent, Fraction) and isinstance(base, Fraction):
            if base == 0:
                return Fraction(0) if exponent > 0 else self._one_over(base) if exponent else Fraction(1)
            root = _exact_root(base, exponent.denominator)
            bits = _bits(root) * abs(exponent.numerator) if root is not None else MAX_ALL_BITS
            if root is not None and bits <= MAX_EXACT_BITS:
                self.bits += bits
                return root**exponent.numerator
        base, exponent = self.inexact(base), self.inexact(exponent)
        if base:
            self._check(base, 1 << MAX_MAGNITUDE)
            size = self.math.mag(abs(self.math.log(abs(base))) + 1) + (
                self.math.mag(exponent) if exponent else 0
            )
            if size > MAX_MAGNITUDE:
                raise Unread("a power that is too large")
        return self._tidy(self.math.power(base, exponent))

    def _tidy(self, value: Any) -> Any:
        """A real number where the imaginary part is only an error."""
        if not isinstance(value, self.math.mpc):
            return value
        if abs(value.imag) <= self.math.ldexp(abs(value.real), -self.math.prec + 20):
            return value.real
        return value

    def _check(self, value: Number, magnitude: int) -> None:
        if (
            value
            and self.math.isfinite(self.inexact(value))
            and self.math.mag(self.inexact(value)) > magnitude
        ):
            raise Unread("a number that is too large")

    def _is_exact(self, one: Number, other: Number) -> bool:
        """Return whether two numbers are fractions, short enough to go on with them exactly."""
        if not isinstance(one, Fraction) or not isinstance(other, Fraction):
            return False
        bits = _bits(one) + _bits(other)
        self.bits += bits
        return bits <= MAX_EXACT_BITS and self.bits <= MAX_ALL_BITS


def _bits(value: Fraction) -> int:
    return value.numerator.bit_length() + value.denominator.bit_length()


def _exact_root(value: Fraction, degree: int) -> Fraction | None:
    """The root of a fraction when it is a fraction; of a negative one only the first."""
    if degree == 1:
        return value
    if value < 0 or degree > 64 or _bits(value) > 10_000:
        return None
    over, under = _integer_root(value.numerator, degree), _integer_root(value.denominator, degree)
    return Fraction(over, under) if over is not None and under is not None else None


def _integer_root(value: int, degree: int) -> int | None:
    root = isqrt(value) if degree == 2 else _newton(value, degree)
    return root if root**degree == value else None


def _newton(value: int, degree: int) -> int:
    """The largest integer whose power is at most `value`."""
    if value < 2:
        return value
    root = 1 << -(-value.bit_length() // degree)
    while True:
        better = ((degree - 1) * root + value // root ** (degree - 1)) // degree
        if better >= root:
            return root
        root = better
