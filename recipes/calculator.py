"""A task of several turns: sums too large for the head, and a calculator that the model may call.

    shoestring task show recipes/calculator.py --reply 12
    shoestring rl --task recipes/calculator.py --set model=MODEL --set max_tokens=256

The model's chat template must have tool calls, as those of DeepSeek and Qwen have.
"""

import random
import re
from collections.abc import Iterator

from shoestring.tasks.problems import split_of
from shoestring.tasks.task import Example, Split, Task


class Calculator(Task):
    """Products and sums of numbers with three digits; the reward is 1 for the right result."""

    tools = ("calculator",)
    max_turns = 3

    def examples(self, split: Split, seed: int) -> Iterator[Example]:
        rng = random.Random(f"calculator {split} {seed}")
        while True:
            a, b, c = (rng.randint(100, 999) for _ in range(3))
            problem = f"{a}*{b}+{c}"
            if split_of(problem) == split:
                yield Example(question=f"What is {problem}?", answer=a * b + c)

    def reward(self, example: Example, text: str) -> float:
        """1 for the right number, whether the model called the calculator or not."""
        numbers = re.findall("[0-9]+", text.rpartition("</think>")[2].replace(",", ""))
        return float(bool(numbers) and numbers[-1] == str(example.answer))


def test_the_right_number_is_rewarded() -> None:
    """Check the reward on replies whose value is known."""
    task = Calculator()
    example = next(task.examples("train", 0))
    assert task.reward(example, f"It is {example.answer}.") == 1.0
    assert task.reward(example, f"It is {example.answer + 1}.") == 0.0
