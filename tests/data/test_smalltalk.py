"""Pairs of small talk: the better reply is the task's own, the worse one never is."""

import json
import random
from itertools import islice

from shoestring.data import smalltalk
from shoestring.tasks.greeting import FACTS, HELLO, NO, WHO, Greeting
from shoestring.tasks.problems import split_of


def test_pairs_are_of_the_training_split_and_always_differ():
    rows = list(islice(smalltalk.pairs(seed=3), 400))
    assert all(row["chosen"] in (HELLO, WHO, NO) and row["chosen"] != row["rejected"] for row in rows)
    assert {split_of(row["prompt"]) for row in rows} == {"train"}
    assert len({row["rejected"] for row in rows}) > 20
    text = smalltalk.write_pairs(3, 10)
    assert [json.loads(line) for line in text.splitlines()] == rows[:10]


def test_a_worse_reply_lacks_what_the_better_one_has():
    rng = random.Random(0)
    for reply in (HELLO, WHO, NO):
        assert smalltalk.curt(reply, rng) in ("Hello.", "I am a tiny model.", "I cannot do that.")
        assert FACTS[1] not in smalltalk.without_example(reply, rng)
        assert FACTS[0] not in smalltalk.only_example(reply, rng)
        assert smalltalk.other_reply(reply, rng) != reply
        assert smalltalk.twice(reply, rng).count(FACTS[1]) == 2
        assert reply.startswith(smalltalk.cut(reply, rng))


def test_the_task_s_own_program_sees_only_some_of_it():
    """A reply to something else has all of its facts: only a preference tells it from a fitting one."""
    (example,) = islice(Greeting().examples("train", 0), 1)
    other = smalltalk.other_reply(example.answer, random.Random(0))
    assert Greeting().reward(example, other) == 1.0
