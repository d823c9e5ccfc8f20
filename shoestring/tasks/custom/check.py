"""Checks of a task before a run: its examples, its splits, and its rewards for replies of every kind."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from shoestring.tasks.task import Example, Task, distinct_examples
from shoestring.tasks.verify import Verdict, Verifier

NUM_EXAMPLES = 100
ODD_REPLIES = ("", " ", "<think>never ends", "\N{GREEK SMALL LETTER ALPHA}\0\n" * 50, "9" * 5000, "[" * 2000)
"""Replies that a model may give, and that a reward has to bear."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One check and its result."""

    name: str
    ok: bool
    text: str


def check_task(task: Task, label: str) -> Iterator[Finding]:
    """The findings, one after the other; ShoestringError for a task without examples.

    `label` is the name of the task for people.
    """
    train = distinct_examples(task, "train", 0, NUM_EXAMPLES)
    again = distinct_examples(task, "train", 0, NUM_EXAMPLES)
    yield Finding(name="training examples", ok=True, text=f"{len(train)} different ones read, of {label}")
    yield Finding(
        name="same seed, same examples",
        ok=train == again,
        text="yes" if train == again else "no; what is random has to come from the seed, as runs repeat",
    )
    test = distinct_examples(task, "test", 0, NUM_EXAMPLES)
    common = {example.key for example in train} & {example.key for example in test}
    yield Finding(
        name="test examples",
        ok=not common,
        text=f"{len(test)}, and {len(common) or 'none'} of them for training too",
    )
    replies = [*ODD_REPLIES, as_text(train[0].answer)]
    verdicts = judge(task, train[0], replies)
    faults = [verdict for verdict in verdicts if verdict.fault]
    words = f"{faults[0].fault} for the reply {replies[faults[0].ticket][:20]!a}" if faults else "all judged"
    yield Finding(name="odd replies", ok=not faults, text=words)
    rewards = [verdict.reward for verdict in verdicts]
    yield Finding(
        name="rewards differ",
        ok=len(set(rewards)) > 1,
        text=f"{rewards[-1]} for the answer itself, {rewards[0]} for nothing",
    )


def judge(task: Task, example: Example, texts: Sequence[str], *, shows_prints: bool = False) -> list[Verdict]:
    """The verdicts on replies to an example, as a run would have them, in the order of the texts.

    `shows_prints` lets what the reward prints through to stderr.
    """
    with Verifier({task.name: task}, shows_prints=shows_prints) as verifier:
        for ticket, text in enumerate(texts):
            verifier.submit(ticket, task.name, example, text)
        return sorted(verifier.results(wait=True), key=lambda verdict: int(verdict.ticket))


def as_text(answer: object) -> str:
    """An example's answer as a person would write it."""
    return answer if isinstance(answer, str) else json.dumps(answer, ensure_ascii=False)
