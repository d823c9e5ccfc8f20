"""Corpus of worked problems, good and bad: generated conversations that r1-mini's base model is trained on.

Most are Countdown problems. Each line of the working combines one pair of numbers, then tries the third with
a verdict on each attempt. The working stops after a few lines, with or without success: about one in four
ends in the right answer, the others in an attempt that missed. Half of it is methodical, and a few of those
go on for longer; the other half takes pairs in any order and repeats them, leaves attempts out and makes
slips. Verdicts are in English, in Chinese, or in both. The rest are sums and small talk. So the base model
learns to try, to check and to slip, but nothing shows it that a methodical and longer search is better.
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
"""Steps with larger results are left out."""


@dataclass(frozen=True, kw_only=True)
class Scratchwork:
    """Settings of the corpus; shares are of 1."""

    countdown: float = 0.9
    arithmetic: float = 0.05
    """The rest is small talk."""
    methodical: float = 0.5
    long: float = 0.2
    """Share of methodical workings with 3 to 9 lines; all others have 0 to 2."""
    lines: tuple[float, ...] = (0.3, 0.6, 0.1)
    """Relative frequencies of 0, 1, 2... lines."""
    slip: float = 0.001
    """Share of results with a wrong digit in methodical workings; `sloppy_slip` in the others."""
    sloppy_slip: float = 0.01
    english: float = 0.7
    chinese: float = 0.15
    """The rest is in both languages."""


def conversations(config: Scratchwork, seed: int) -> Iterator[dict[str, Any]]:
    """Conversations in OpenAI's format, without end: a question, and an answer with its working."""
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
        text = f"<think>{thinking}</think>{answer}"  # also around empty thinking
        yield {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": text}]}


def write(config: Scratchwork, seed: int, count: int) -> str:
    """The first `count` conversations as jsonl."""
    return "".join(
        json.dumps(c, ensure_ascii=False) + "\n" for c in islice(conversations(config, seed), count)
    )


def work_countdown(example: Example, config: Scratchwork, rng: random.Random) -> tuple[str, str]:
    """The working and the answer: the attempt that hit the target, else one of those that missed."""
    numbers, target = example.answer["numbers"], example.answer["target"]
    all_pairs = first_steps(numbers)
    is_methodical, plan = rng.random() < config.methodical, []
    is_long = is_methodical and rng.random() < config.long
    count = rng.randint(3, 9) if is_long else rng.choices(range(len(config.lines)), config.lines)[0]
    if is_methodical:  # it begins anywhere, then follows the order
        begin = rng.randrange(len(all_pairs))
        pairs = (all_pairs[begin:] + all_pairs[:begin])[:count]
        plan = [(step, last, second_steps(step.value, last)) for step, last in pairs]
    else:
        for step, last in rng.choices(all_pairs, k=count):
            tries = second_steps(step.value, last)
            plan.append((step, last, rng.sample(tries, rng.randint(1, len(tries)))))
    shares = (config.english, config.chinese, 1 - config.english - config.chinese)
    language = rng.choices(("en", "zh", ""), shares)[0]
    slip = config.slip if is_methodical else config.sloppy_slip
    lines = []
    for step, last, tries in plan:
        line, hit = _line(step, last, tries, target, language, slip, rng)
        lines.append(line)
        if hit is not None:
            return "\n".join(lines), hit
    step, last, tries = rng.choice(
        plan or [(*first, second_steps(first[0].value, first[1])) for first in all_pairs]
    )
    return "\n".join(lines), expression(step, rng.choice(tries), last)


def work_sum(example: Example, config: Scratchwork, rng: random.Random) -> tuple[str, str]:
    """The working of a sum, one operation per line, products first, and its result.

    Without method there is no working, and half of the results are off by up to 9.
    """
    text = example.question.removesuffix("=?")
    if rng.random() > config.methodical:
        is_wrong = rng.random() < 0.5
        return "", str(example.answer + (rng.randint(-9, 9) if is_wrong else 0))
    numbers, ops, digits = [], [], ""
    for char in text + "+":
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
    """Every result of two of three numbers, with the third number, in a fixed order."""
    a, b, c = numbers
    pairs = ((a, b, c), (a, c, b), (b, c, a))
    return [(step, last) for x, y, last in pairs for step in steps(x, y) if step.value <= HIGHEST]


def second_steps(value: int, last: int) -> list[Step]:
    """Every result of a first result and the third number."""
    return [step for step in steps(value, last) if step.value <= HIGHEST]


def expression(first: Step, second: Step, last: int) -> str:
    """The two steps as one expression."""
    inner = f"({first.a}{first.op}{first.b})"
    if second.op == "-" and second.a == last and second.a != first.value:
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
    """The line of a pair, with attempts until one hits the target; and the answer if one does."""
    value = _with_slip(step.value, rng) if rng.random() < slip else step.value
    line = f"{step.a}{step.op}{step.b}={value}"
    for second in tries:
        again = next((s for s in steps(value, last) if s.op == second.op), second)
        result = _with_slip(again.value, rng) if rng.random() < slip else again.value
        words = VERDICTS[language or rng.choice(("en", "zh"))]
        verdict = words[(result > target) + 2 * (result == target)]
        line += f" {_operation(again, value, last)}={result}{verdict}"
        if result == target:
            return line, expression(step, second, last)
    return line, None


def _operation(step: Step, value: int, other: int) -> str:
    """The operation on `value` as text: `+7`, `*7`, `-7`; `7-5` where it is subtracted from the other."""
    return f"{step.op}{other}" if step.op != "-" or step.a == value else f"{step.a}-{value}"


def _with_slip(value: int, rng: random.Random) -> int:
    """The number with one digit replaced at random."""
    digits = list(str(value))
    digits[rng.randrange(len(digits))] = str(rng.randint(0, 9))
    return int("".join(digits))
