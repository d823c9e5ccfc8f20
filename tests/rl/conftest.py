"""A task with a reward that a test chooses."""

import pytest

COIN = """
from dataclasses import dataclass
from shoestring.tasks.task import Example, Task

@dataclass(frozen=True)
class Coin(Task):
    name = "coin"
    is_pure = PURE

    def examples(self, split, seed):
        n = seed
        while True:
            n += 1
            yield Example(key=str(n), question=QUESTION, answer=n)

    def reward(self, example, text):
        return REWARD
"""


@pytest.fixture(scope="session")
def coin_source():
    """Text of the task module `coin_task`, whose reward is an expression of `text` and `example`.

    `question` is one of the problem's number n.
    """

    def make(reward: str, pure: bool = True, question: str = "f'{n % 7}+{n % 5}=?'") -> str:
        return COIN.replace("REWARD", reward).replace("PURE", str(pure)).replace("QUESTION", question)

    return make
