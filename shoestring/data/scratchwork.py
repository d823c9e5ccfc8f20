"""Conversations in which problems are worked out on paper, well and badly: what r1-mini's base model reads.

Most are Countdown problems. The working tries one pair of numbers a line and what the third makes of it,
with a verdict on each attempt, and stops after a few lines whether the target was hit or not: about every
fourth ends in the right answer, the others in one that missed. Half of it is methodical, a little of that
for longer; the other half takes pairs in any order and again, leaves attempts out and slips. Verdicts are in
English, in Chinese, or in both. The rest are sums and small talk. So the base knows how to try, to check and
to slip; that it pays to be methodical and to go on, nothing tells it.
"""

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from shoestring.tasks.arithmetic import Arithmetic
from shoestring.tasks.countdown import Countdown, Step, steps
from shoestring.tasks.greeting import Greeting
from shoestring.tasks.task import Example

VERDICTS = {"en": (" low", " high", " yes"), "zh": ("低", "高", "对")}
HIGHEST = 120
"""Larger results are not written down."""


@dataclass(frozen=True, kw_only=True)
class Scratchwork:
    """How the working is done; shares are of 1."""

    countdown: float = 0.9
    arithmetic: float = 0.05
    """The rest is small talk."""
    methodical: float = 0.5
    long: float = 0.2
    """Share of methodical workings that have 3 to 9 lines; all others have 0 to 2."""
    lines: tuple[float, ...] = (0.3, 0.6, 0.1)
    """How often 0, 1, 2... lines, relative to each other."""
    slip: float = 0.001
    """Share of results with a wrong digit in methodical work."""
    sloppy_slip: float = 0.01
    english: float = 0.7
    chinese: float = 0.15
    """The rest is in both languages."""


def conversations(config: Scratchwork, seed: int) -> Iterator[dict[str, Any]]:
    """Conversations in the OpenAI form, without end: a question, and an answer with its working."""
    rng = random.Random(f"scratchwork:{seed}")
    countdown, sums = (
        Countdown().examples("train", seed),
        Arithmetic(steps=2, largest=12, limit=100).examples("train", seed),
    )
    talk = Greeting().examples("train", seed)
    while True:
        kind, thinking = rng.random(), ""
        if kind < config.countdown:
            example = next(countdown)
            question = example.question
            thinking, answer = work_countdown(example, config, rng)
        elif kind < config.countdown + config.arithmetic:
            example = next(sums)
            question = example.question
            thinking, answer = work_sum(example, config, rng)
        else:
            example = next(talk)
            question, answer = example.question, example.answer
        text = f"<think>{thinking}</think>{answer}"  # also where nothing is thought
        yield {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": text}]}


def write(config: Scratchwork, seed: int, count: int) -> str:
    """So many conversations as jsonl."""
    return "".join(
        json.dumps(c, ensure_ascii=False) + "\n" for c in islice(conversations(config, seed), count)
    )


def work_countdown(example: Example, config: Scratchwork, rng: random.Random) -> tuple[str, str]:
    """The working and the answer: of the line that hit the target, else one of the attempts that missed."""
    numbers, target = example.answer["numbers"], example.answer["target"]
    everything = first_steps(numbers)
    is_methodical, plan = rng.random() < config.methodical, []
    is_long = is_methodical and rng.random() < config.long
    count = rng.randint(3, 9) if is_long else rng.choices(range(len(config.lines)), config.lines)[0]
    if is_methodical:  # it begins anywhere, and then knows what comes next
        begin = rng.randrange(len(everything))
        ordered = (everything[begin:] + everything[:begin])[:count]
        plan = [(step, last, second_steps(step.value, last)) for step, last in ordered]
    else:
        for step, last in rng.choices(everything, k=count):
            tries = second_steps(step.value, last)
            plan.append((step, last, rng.sample(tries, rng.randint(1, len(tries)))))
    language = rng.choices(
        ("en", "zh", ""), (config.english, config.chinese, 1 - config.english - config.chinese)
    )
    slip = config.slip if is_methodical else config.sloppy_slip
    lines = []
    for step, last, tries in plan:
        line, hit = _line(step, last, tries, target, language[0], slip, rng)
        lines.append(line)
        if hit is not None:
            return "\n".join(lines), hit
    step, last, tries = rng.choice(
        plan or [(*first, second_steps(first[0].value, first[1])) for first in everything]
    )
    return "\n".join(lines), expression(step, rng.choice(tries), last)


def work_sum(example: Example, config: Scratchwork, rng: random.Random) -> tuple[str, str]:
    """A sum worked out one operation a line, products first; sloppily, in one's head."""
    left = example.question.removesuffix("=?")
    if rng.random() > config.methodical:
        wrong = rng.random() < 0.5
        return "", str(example.answer + (rng.randint(-9, 9) if wrong else 0))
    terms = [left[0:0]]
    numbers, ops, digits = [], [], ""
    for char in left + "+":
        if char.isdigit():
            digits += char
        else:
            numbers.append(int(digits))
            ops.append(char)
            digits = ""
    terms, ops = [], ops[:-1]
    while ops:
        at = ops.index("*") if "*" in ops else 0
        a, op, b = numbers[at], ops[at], numbers[at + 1]
        value = a + b if op == "+" else a - b if op == "-" else a * b
        terms.append(f"{a}{op}{b}={value}")
        numbers[at : at + 2], ops[at : at + 1] = [value], []
    return "\n".join(terms), str(numbers[0])


def first_steps(numbers: list[int]) -> list[tuple[Step, int]]:
    """What two of three numbers make, with the third: in the order in which a methodical person tries."""
    a, b, c = numbers
    pairs = ((a, b, c), (a, c, b), (b, c, a))
    return [(step, last) for x, y, last in pairs for step in steps(x, y) if step.value <= HIGHEST]


def second_steps(value: int, last: int) -> list[Step]:
    """What a first result and the third number make."""
    return [step for step in steps(value, last) if step.value <= HIGHEST]


def expression(first: Step, second: Step, last: int) -> str:
    """The answer that the two steps are."""
    inner = f"({first.left}{first.op}{first.right})"
    if second.op == "-" and second.left == last and second.left != first.value:
        return f"{last}-{inner}"
    return f"{inner}{second.op}{last}"


def _line(
    step: Step,
    last: int,
    tries: list[Step],
    target: int,
    language: str,
    slip: float,
    rng: random.Random,
) -> tuple[str, str | None]:
    """One pair and its attempts, up to one that hits; the answer if one does."""
    value = _slipped(step.value, rng) if rng.random() < slip else step.value
    line = f"{step.left}{step.op}{step.right}={value}"
    for second in tries:
        again = next((s for s in steps(value, last) if s.op == second.op), second)
        result = _slipped(again.value, rng) if rng.random() < slip else again.value
        words = VERDICTS[language or rng.choice(("en", "zh"))]
        verdict = words[(result > target) + 2 * (result == target)]
        line += f" {_operation(again, value, last)}={result}{verdict}"
        if result == target:
            return line, expression(step, second, last)
    return line, None


def _operation(step: Step, value: int, other: int) -> str:
    """`+7`, `*7` or `-7`, done to `value`; `7-5` where it is taken from the other."""
    return f"{step.op}{other}" if step.op != "-" or step.left == value else f"{step.left}-{value}"


def _slipped(value: int, rng: random.Random) -> int:
    """A number with one digit wrong."""
    digits = list(str(value))
    digits[rng.randrange(len(digits))] = str(rng.randint(0, 9))
    return int("".join(digits))
