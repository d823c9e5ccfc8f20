"""Scratch work is what it says: mostly sound, sometimes right, in the form that a reward asks for."""

import json
import random
import re
from itertools import islice

from shoestring.data.scratchwork import (
    HIGHEST,
    Scratchwork,
    conversations,
    expression,
    first_steps,
    second_steps,
    work_countdown,
    work_sum,
    write,
)
from shoestring.tasks.answers import evaluate
from shoestring.tasks.arithmetic import Arithmetic
from shoestring.tasks.countdown import Countdown
from shoestring.tasks.greeting import Greeting
from shoestring.tasks.rewards import format_reward, language_reward

SOUND = Scratchwork(
    methodical=1.0, slip=0.0, lines=(0, 0, 0, 0, 0, 0, 0, 0, 0, 1), long=0.0, english=1.0, chinese=0.0
)
ATTEMPT = re.compile(r" (?:(\d+)-(\d+)|([+*-])(\d+))=(\d+)( low| high| yes)")


def test_methodical_work_that_goes_on_always_ends_in_a_right_answer() -> None:
    task, rng = Countdown(), random.Random(0)
    for example in islice(task.examples("train", 3), 100):
        thinking, answer = work_countdown(example, SOUND, rng)
        text = f"<think>{thinking}</think>{answer}"
        assert task.reward(example, text) == 1.0, (example, text)
        assert format_reward(text) == language_reward(text, "en") == 1.0
        for line in thinking.split("\n"):
            left, op, right, value = re.match(r"(\d+)([+*-])(\d+)=(\d+)", line).groups()
            assert evaluate(f"{left}{op}{right}") == int(value)
            for high, low, op, other, result, verdict in ATTEMPT.findall(line):
                done = f"{high}-{low}" if high else f"{value}{op}{other}"
                assert evaluate(done) == int(result)
                target = example.answer["target"]
                words = {-1: " low", 1: " high", 0: " yes"}
                assert verdict == words[(int(result) > target) - (int(result) < target)]


def test_the_base_gives_up_early_and_is_right_sometimes() -> None:
    task, rng, config = Countdown(), random.Random(0), Scratchwork()
    worked = [(e, *work_countdown(e, config, rng)) for e in islice(task.examples("train", 0), 3000)]
    right = sum(task.reward(e, f"<think>{thinking}</think>{answer}") for e, thinking, answer in worked)
    assert 0.2 < right / len(worked) < 0.3
    assert sum(thinking.count("\n") + bool(thinking) for _, thinking, _ in worked) / len(worked) < 1.5


def test_every_kind_of_conversation_is_there_and_well_formed() -> None:
    talks = list(islice(conversations(Scratchwork(), 0), 500))
    questions = [talk["messages"][0]["content"] for talk in talks]
    starts = {"make": 0, "=?": 0, "other": 0}
    for question in questions:
        kind = next((k for k in starts if question.startswith(k) or question.endswith(k)), "other")
        starts[kind] += 1
    assert all(count > 10 for count in starts.values()), starts
    for talk in talks:
        assert format_reward(talk["messages"][1]["content"]) == 1.0


def test_the_same_seed_writes_the_same() -> None:
    first, again, other = (write(Scratchwork(), seed, 50) for seed in (1, 1, 2))
    assert first == again != other
    assert len([json.loads(line) for line in first.splitlines()]) == 50


def test_expressions_are_the_steps_taken() -> None:
    for numbers in ([3, 8, 1], [20, 20, 20], [1, 2, 3], [7, 1, 15]):
        for step, last in first_steps(numbers):
            for second in second_steps(step.value, last):
                assert evaluate(expression(step, second, last)) == second.value <= HIGHEST


def test_sums_are_worked_out_to_the_right_result() -> None:
    task, rng = Arithmetic(steps=3, largest=12, limit=100), random.Random(0)
    for example in islice(task.examples("train", 0), 50):
        thinking, answer = work_sum(example, Scratchwork(methodical=1.0), rng)
        assert task.reward(example, f"<think>{thinking}</think>{answer}") == 1.0
        assert len(thinking.split("\n")) == 3


def test_small_talk_is_answered_honestly() -> None:
    task = Greeting()
    for split in ("train", "test"):
        for example in islice(task.examples(split, 0), 50):
            assert task.reward(example, f"<think></think>{example.answer}") == 1.0
            assert task.reward(example, "<think></think>I am a large model and can do anything.") == 0.0
            assert task.reward(example, "<think></think>" + 20 * example.answer) == 0.0
    train, test = ({e.key for e in islice(task.examples(split, 0), 2000)} for split in ("train", "test"))
    assert not train & test
