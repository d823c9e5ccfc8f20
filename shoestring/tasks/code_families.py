"""Small programming problems made from templates, with tests that our own reference functions answer."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

CASES, VISIBLE = 8, 2
TRIES = 50
LETTERS = "abcdefghijklmnopqrstuvwxyz"
WORDS = """amber apple arrow basket beach bottle bridge butter cabin candle carpet cherry circle copper cotton
desert dinner dragon eagle engine feather fiddle flower forest garden ginger glacier hammer harbor
honey island jacket jungle kettle ladder lantern lemon letter marble meadow mirror needle ocean
orange paddle pepper pillow planet pocket puzzle rabbit ribbon river saddle silver summer tablet
thunder tunnel valley velvet violin walnut window winter yellow zebra""".split()  # noqa: SIM905

Kind = Literal["numbers", "number", "words"]


@dataclass(frozen=True, kw_only=True)
class Case:
    """What goes in, and what must come out."""

    stdin: str
    stdout: str


@dataclass(frozen=True, kw_only=True)
class Problem:
    """A question with its tests, the first VISIBLE of which may be shown."""

    key: str
    question: str
    cases: tuple[Case, ...]


@dataclass(frozen=True)
class Template:
    """A family of problems: a sentence with gaps, what may fill them, and the reference for the result."""

    name: str
    kind: Kind
    text: str
    solve: Callable[..., Any]
    """Gets the input and the gaps by name; a list is printed one item a line."""
    gaps: dict[str, range | str] = field(default_factory=dict)


@dataclass(frozen=True)
class Opening:
    """What is done to the input before anything else."""

    name: str
    text: str
    apply: Callable[..., Any]
    gaps: dict[str, range] = field(default_factory=dict)


def joined(values: Any) -> str:
    return " ".join(str(value) for value in values)


def window_sums(v: list[int], k: int) -> list[int]:
    return [sum(v[at : at + k]) for at in range(len(v) - k + 1)]


def in_base(n: int, base: int) -> str:
    digits = ""
    while n:
        n, digit = divmod(n, base)
        digits = str(digit) + digits
    return digits or "0"


def steps(n: int, k: int, a: int, b: int, t: int) -> int:
    for _ in range(t):
        n = n // k if n % k == 0 else n * a + b
    return n


def shifted(text: str, k: int) -> str:
    return text.translate(str.maketrans(LETTERS, LETTERS[k:] + LETTERS[:k]))


def pairs(v: list[int], k: int) -> int:
    return sum(v[i] + v[j] == k for i in range(len(v)) for j in range(i))


INPUT: dict[Kind, str] = {
    "numbers": "Read one line of integers separated by spaces.",
    "number": "Read one positive integer n.",
    "words": "Read one line of lower-case words separated by single spaces.",
}
OPENINGS: dict[Kind, tuple[Opening, ...]] = {
    "numbers": (
        Opening("", "", lambda v: v),
        Opening("add", " First add {p} to each.", lambda v, p: [x + p for x in v], {"p": range(2, 30)}),
        Opening("times", " First multiply each by {p}.", lambda v, p: [x * p for x in v], {"p": range(2, 8)}),
        Opening("reverse", " First reverse their order.", lambda v: v[::-1]),
        Opening("absolute", " First take the absolute value of each.", lambda v: [abs(x) for x in v]),
        Opening("sort", " First sort them in ascending order.", sorted),
    ),
    "number": (
        Opening("", "", lambda n: n),
        Opening("add", " First add {p} to it.", lambda n, p: n + p, {"p": range(2, 60)}),
        Opening("square", " First square it.", lambda n: n * n),
    ),
    "words": (
        Opening("", "", lambda w: w),
        Opening("reverse", " First reverse the order of the words.", lambda w: w[::-1]),
        Opening("mirror", " First reverse the letters of each word.", lambda w: [x[::-1] for x in w]),
        Opening("drop", " First drop the first letter of each word.", lambda w: [x[1:] for x in w]),
    ),
}
# A sentence, its gaps, and the reference that fills them: one or two lines each.
TEMPLATES = (
    Template("divisible", "numbers", "Print the sum of those that are divisible by {k}.",
             lambda v, k: sum(x for x in v if x % k == 0), {"k": range(2, 10)}),
    Template("affine", "numbers", "Print {a} * x + {b} for each x in order, on one line.",
             lambda v, a, b: joined(a * x + b for x in v), {"a": range(2, 10), "b": range(1, 20)}),
    Template("above", "numbers", "Print how many of them are greater than {k}.",
             lambda v, k: sum(x > k for x in v), {"k": range(-10, 45)}),
    Template("rotate", "numbers", "Print them rotated left by {k} places, on one line.",
             lambda v, k: joined(v[k:] + v[:k]), {"k": range(1, 6)}),
    Template("window", "numbers", "Print the largest sum of {k} neighbouring integers.",
             lambda v, k: max(window_sums(v, k)), {"k": range(2, 6)}),
    Template("ranked", "numbers", "Print number {k} (from 1) of them, largest first.",
             lambda v, k: sorted(v)[-k], {"k": range(1, 7)}),
    Template("pairs", "numbers", "Print how many pairs from two different positions have the sum {k}.",
             pairs, {"k": range(-10, 40)}),
    Template("remainders", "numbers", "Print how many leave 0, 1, ... when divided by {k}, a line each.",
             lambda v, k: [sum(x % k == r for x in v) for r in range(k)], {"k": range(2, 7)}),
    Template("base", "number", "Print it in base {base}.", in_base, {"base": range(2, 10)}),
    Template("steps", "number", "Then {t} times: if {k} divides it, divide it by {k}, else multiply "
             "it by {a} and add {b}. Print the result.", steps,
             {"k": range(2, 6), "a": range(2, 6), "b": range(1, 8), "t": range(2, 9)}),
    Template("digits", "number", "Print the sum of its decimal digits, each multiplied by {k}.",
             lambda n, k: sum(k * int(digit) for digit in str(n)), {"k": range(1, 20)}),
    Template("divisors", "number", "Print, a line each, the numbers from 1 to {k} that divide it.",
             lambda n, k: [d for d in range(1, k + 1) if n % d == 0], {"k": range(5, 30)}),
    Template("shift", "words", "Print the line with each letter moved on by {k} in the alphabet (z, then a).",
             lambda w, k: shifted(joined(w), k), {"k": range(1, 26)}),
    Template("count", "words", "Print how often the letter {c} occurs.", lambda w, c: joined(w).count(c),
             {"c": "aeilnorst"}),
    Template("long", "words", "Print those of at least {k} letters in alphabetical order, one a line.",
             lambda w, k: sorted(x for x in w if len(x) >= k), {"k": range(4, 7)}),
    Template("every", "words", "Print words {k}, 2 * {k}, 3 * {k}, ... (the first is 1) on one line.",
             lambda w, k: joined(w[k - 1 :: k]), {"k": range(2, 5)}),
    Template("replace", "words", "Print the line with every {c} replaced by {d}.",
             lambda w, c, d: joined(w).replace(c, d), {"c": "aeilnorst", "d": "bkqxyz"}),
)  # fmt: skip


def draw(rng: random.Random) -> Problem:
    """A problem at random; its tests depend on its key alone."""
    while True:
        template = rng.choice(TEMPLATES)
        opening = rng.choice(OPENINGS[template.kind])
        before, gaps = _fill(opening.gaps, rng), _fill(template.gaps, rng)
        names = ",".join(f"{name}={value}" for name, value in (before | gaps).items())
        key = "-".join(part for part in (opening.name, template.name, names) if part)
        cases = _cases(template, opening, before, gaps, random.Random(key))
        if cases:
            text = f"{opening.text.format(**before)} {template.text.format(**gaps)}"
            return Problem(key=key, question=INPUT[template.kind] + text, cases=cases)


def _fill(gaps: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    return {name: rng.choice(values) for name, values in gaps.items()}


def _cases(
    template: Template, opening: Opening, before: dict[str, Any], gaps: dict[str, Any], rng: random.Random
) -> tuple[Case, ...]:
    """Tests with some output each, of which the hidden ones are not all alike; none if they cannot be had."""
    cases: dict[str, Case] = {}
    for _ in range(TRIES):
        value = _input(template.kind, rng)
        stdin = (str(value) if template.kind == "number" else joined(value)) + "\n"
        result = template.solve(opening.apply(value, **before), **gaps)
        stdout = "\n".join(str(line) for line in result) if isinstance(result, list) else str(result)
        if not stdout.strip() or stdin in cases:
            continue
        cases[stdin] = Case(stdin=stdin, stdout=stdout + "\n")
        if len(cases) == CASES:
            if len({case.stdout for case in list(cases.values())[VISIBLE:]}) > 1:
                return tuple(cases.values())
            cases.popitem()
    return ()


def _input(kind: Kind, rng: random.Random) -> Any:
    if kind == "number":
        return rng.randint(2, 10 ** rng.randint(2, 5))
    if kind == "words":
        return rng.choices(WORDS, k=rng.randint(5, 9))
    return [rng.randint(-30, 60) for _ in range(rng.randint(6, 12))]
