"""Small programming problems from templates, with tests whose outputs our reference functions compute."""

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
    """One test: an input and the output that is right."""

    stdin: str
    stdout: str


@dataclass(frozen=True, kw_only=True)
class CodeProblem:
    """A question with its tests; the first VISIBLE of them may be shown."""

    key: str
    question: str
    cases: tuple[Case, ...]


@dataclass(frozen=True)
class Family:
    """A family of problems: a sentence with placeholders, their choices, and the reference solution."""

    name: str
    kind: Kind
    text: str
    solve: Callable[..., Any]
    """Takes the input, and the placeholders' values by name; a list is printed one item per line."""
    choices: dict[str, range | str] = field(default_factory=dict)


@dataclass(frozen=True)
class FirstStep:
    """A step that changes the input before anything else."""

    name: str
    text: str
    apply: Callable[..., Any]
    choices: dict[str, range] = field(default_factory=dict)


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
FIRST_STEPS: dict[Kind, tuple[FirstStep, ...]] = {
    "numbers": (
        FirstStep("", "", lambda v: v),
        FirstStep("add", " First add {p} to each.", lambda v, p: [x + p for x in v], {"p": range(2, 30)}),
        FirstStep(
            "times", " First multiply each by {p}.", lambda v, p: [x * p for x in v], {"p": range(2, 8)}
        ),
        FirstStep("reverse", " First reverse their order.", lambda v: v[::-1]),
        FirstStep("absolute", " First take the absolute value of each.", lambda v: [abs(x) for x in v]),
        FirstStep("sort", " First sort them in ascending order.", sorted),
    ),
    "number": (
        FirstStep("", "", lambda n: n),
        FirstStep("add", " First add {p} to it.", lambda n, p: n + p, {"p": range(2, 60)}),
        FirstStep("square", " First square it.", lambda n: n * n),
    ),
    "words": (
        FirstStep("", "", lambda w: w),
        FirstStep("reverse", " First reverse the order of the words.", lambda w: w[::-1]),
        FirstStep("mirror", " First reverse the letters of each word.", lambda w: [x[::-1] for x in w]),
        FirstStep("drop", " First drop the first letter of each word.", lambda w: [x[1:] for x in w]),
    ),
}
# A sentence, the reference solution, and the choices of its placeholders: one or two lines each.
FAMILIES = (
    Family("divisible", "numbers", "Print the sum of those that are divisible by {k}.",
             lambda v, k: sum(x for x in v if x % k == 0), {"k": range(2, 10)}),
    Family("affine", "numbers", "Print {a} * x + {b} for each x in order, on one line.",
             lambda v, a, b: joined(a * x + b for x in v), {"a": range(2, 10), "b": range(1, 20)}),
    Family("above", "numbers", "Print how many of them are greater than {k}.",
             lambda v, k: sum(x > k for x in v), {"k": range(-10, 45)}),
    Family("rotate", "numbers", "Print them rotated left by {k} places, on one line.",
             lambda v, k: joined(v[k:] + v[:k]), {"k": range(1, 6)}),
    Family("window", "numbers", "Print the largest sum of {k} neighbouring integers.",
             lambda v, k: max(window_sums(v, k)), {"k": range(2, 6)}),
    Family("ranked", "numbers", "Print number {k} (from 1) of them, largest first.",
             lambda v, k: sorted(v)[-k], {"k": range(1, 7)}),
    Family("pairs", "numbers", "Print how many pairs from two different positions have the sum {k}.",
             pairs, {"k": range(-10, 40)}),
    Family("remainders", "numbers", "Print how many leave 0, 1, ... when divided by {k}, a line each.",
             lambda v, k: [sum(x % k == r for x in v) for r in range(k)], {"k": range(2, 7)}),
    Family("base", "number", "Print it in base {base}.", in_base, {"base": range(2, 10)}),
    Family("steps", "number", "Then {t} times: if {k} divides it, divide it by {k}, else multiply "
             "it by {a} and add {b}. Print the result.", steps,
             {"k": range(2, 6), "a": range(2, 6), "b": range(1, 8), "t": range(2, 9)}),
    Family("digits", "number", "Print the sum of its decimal digits, each multiplied by {k}.",
             lambda n, k: sum(k * int(digit) for digit in str(n)), {"k": range(1, 20)}),
    Family("divisors", "number", "Print, a line each, the numbers from 1 to {k} that divide it.",
             lambda n, k: [d for d in range(1, k + 1) if n % d == 0], {"k": range(5, 30)}),
    Family("shift", "words", "Print the line with each letter moved on by {k} in the alphabet (z, then a).",
             lambda w, k: shifted(joined(w), k), {"k": range(1, 26)}),
    Family("count", "words", "Print how often the letter {c} occurs.", lambda w, c: joined(w).count(c),
             {"c": "aeilnorst"}),
    Family("long", "words", "Print those of at least {k} letters in alphabetical order, one a line.",
             lambda w, k: sorted(x for x in w if len(x) >= k), {"k": range(4, 7)}),
    Family("every", "words", "Print words {k}, 2 * {k}, 3 * {k}, ... (the first is 1) on one line.",
             lambda w, k: joined(w[k - 1 :: k]), {"k": range(2, 5)}),
    Family("replace", "words", "Print the line with every {c} replaced by {d}.",
             lambda w, c, d: joined(w).replace(c, d), {"c": "aeilnorst", "d": "bkqxyz"}),
)  # fmt: skip


def draw(rng: random.Random) -> CodeProblem:
    """A random problem; its tests depend on its key alone."""
    while True:
        family = rng.choice(FAMILIES)
        first = rng.choice(FIRST_STEPS[family.kind])
        before, values = _fill(first.choices, rng), _fill(family.choices, rng)
        names = ",".join(f"{name}={value}" for name, value in (before | values).items())
        key = "-".join(part for part in (first.name, family.name, names) if part)
        cases = _cases(family, first, before, values, random.Random(key))
        if cases:
            text = f"{first.text.format(**before)} {family.text.format(**values)}"
            return CodeProblem(key=key, question=INPUT[family.kind] + text, cases=cases)


def _fill(choices: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    return {name: rng.choice(options) for name, options in choices.items()}


def _cases(
    family: Family, first: FirstStep, before: dict[str, Any], values: dict[str, Any], rng: random.Random
) -> tuple[Case, ...]:
    """Tests that all have output, with hidden ones that are not all alike; empty when no draw gives such."""
    cases: dict[str, Case] = {}
    for _ in range(TRIES):
        value = _input(family.kind, rng)
        stdin = (str(value) if family.kind == "number" else joined(value)) + "\n"
        result = family.solve(first.apply(value, **before), **values)
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
