"""Small talk that a tiny model answers honestly: it says that it is tiny, and shows a problem it can do."""

import random
from collections.abc import Iterator
from dataclasses import dataclass

from shoestring.tasks.answers import split_reply
from shoestring.tasks.problems import split_of
from shoestring.tasks.task import Example, Split, Task

HELLO = "Hello! I am a tiny model. I only make numbers from others and work out sums. Try: make 24 from 3,8,1"
WHO = "I am a tiny model, trained from random weights in minutes. Try: make 24 from 3,8,1 or 7*8-12=?"
NO = "I cannot do that. I am a tiny model, and I only make numbers from others. Try: make 24 from 3,8,1"
FACTS = ("tiny model", "make 24 from 3,8,1")
"""Phrases that an honest reply contains."""

GREETINGS = (
    "hi",
    "hello",
    "hey",
    "good morning",
    "good evening",
    "hello there",
    "hi there",
    "你好",
    "thanks",
)
ABOUT = (
    "who are you?",
    "what are you?",
    "what is your name?",
    "what can you do?",
    "help",
    "how were you trained?",
    "are you DeepSeek?",
    "are you a human?",
)
REQUESTS = (
    "write a poem about {}",
    "tell me about {}",
    "what is {}?",
    "explain {}",
    "who invented {}?",
    "translate {} to French",
    "give me a recipe with {}",
    "how do I learn {}?",
    "write a program for {}",
    "summarise {}",
    "do you like {}?",
    "what is the capital of {}?",
)
THINGS = [
    "rain",
    "cats",
    "music",
    "Paris",
    "bread",
    "France",
    "physics",
    "chess",
    "gardens",
    "football",
    "history",
    "bicycles",
    "Python",
    "birds",
    "trains",
    "tea",
    "gravity",
    "love",
    "winter",
    "painting",
    "bees",
    "castles",
    "mountains",
    "jazz",
    "time",
    "dogs",
    "apples",
    "paper",
    "rivers",
    "poetry",
]


@dataclass(frozen=True, kw_only=True)
class Greeting(Task):
    """Messages to a tiny model; a right reply says that it is one and shows a problem that it can do."""

    is_pure = True

    @property
    def name(self) -> str:
        return "greeting"

    def examples(self, split: Split, seed: int) -> Iterator[Example]:
        """Random messages without end; the two splits share none."""
        rng = random.Random(f"greeting:{split}:{seed}")
        while True:
            message, reply = _draw(rng)
            message = message if rng.random() < 0.5 else message.capitalize()
            message = message.rstrip("?!.") + rng.choice(("", "", "?", "!", "."))
            if split_of(message) == split:
                yield Example(key=message, question=message, answer=reply)

    def reward(self, example: Example, text: str) -> float:
        """1.0 when the answer states both facts and is not much longer than ours."""
        answer = split_reply(text).answer
        return float(
            all(fact in answer for fact in FACTS) and len(answer) <= 2 * max(map(len, (HELLO, WHO, NO)))
        )


def _draw(rng: random.Random) -> tuple[str, str]:
    """A message and an honest reply to it."""
    kind = rng.random()
    if kind < 0.3:
        return rng.choice(GREETINGS), HELLO
    if kind < 0.5:
        return rng.choice(ABOUT), WHO
    return rng.choice(REQUESTS).format(rng.choice(THINGS)), NO
