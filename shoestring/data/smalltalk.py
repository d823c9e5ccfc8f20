"""Pairs of replies to small talk, made by a program: a polite and complete one, and one that is worse.

They teach a tiny reward model as people's preferences teach a large one. The better reply greets or declines,
says what the model is, and gives an example of what it can do. The worse one is curt, lacks a part, answers
something else, says everything twice, or breaks off.
"""

import json
import random
from collections.abc import Callable, Iterator

from shoestring.tasks.greeting import HELLO, NO, WHO, Greeting

EXAMPLE = "Try: "
"""The beginning of the part with an example."""


def pairs(seed: int) -> Iterator[dict[str, str]]:
    """Rows with prompt, chosen and rejected, without end."""
    rng = random.Random(f"smalltalk:{seed}")
    for example in Greeting().examples("train", seed):
        worse = rng.choice(WORSE)(example.answer, rng)
        yield {"prompt": example.question, "chosen": example.answer, "rejected": worse}


def write_pairs(seed: int, count: int) -> str:
    """The first `count` pairs as jsonl."""
    rows = pairs(seed)
    return "".join(json.dumps(next(rows), ensure_ascii=False) + "\n" for _ in range(count))


def curt(reply: str, _: random.Random) -> str:
    """The first sentence alone, or one word of refusal."""
    return reply.split(". ")[0].split("! ")[0].split(", ")[0].rstrip(".!") + "."


def without_example(reply: str, _: random.Random) -> str:
    """The reply without an example of what the model can do."""
    return reply.split(EXAMPLE)[0].strip()


def only_example(reply: str, _: random.Random) -> str:
    """The example alone, which does not say who speaks."""
    return EXAMPLE + reply.split(EXAMPLE)[1]


def other_reply(reply: str, rng: random.Random) -> str:
    """A reply to something else."""
    return rng.choice([other for other in (HELLO, WHO, NO) if other != reply])


def twice(reply: str, _: random.Random) -> str:
    """The same said again."""
    return f"{reply} {reply}"


def cut(reply: str, rng: random.Random) -> str:
    """The reply broken off somewhere, at a word."""
    words = reply.split()
    return " ".join(words[: rng.randint(1, len(words) - 2)])


WORSE: tuple[Callable[[str, random.Random], str], ...] = (
    curt,
    without_example,
    only_example,
    other_reply,
    twice,
    cut,
)
