"""A task that a class of the user writes: its examples, rewards in a child, and mistakes by file and line."""

from itertools import islice

import pytest

from shoestring.errors import ConfigError, DataError
from shoestring.tasks.load import describe, load_task, rebuild
from shoestring.tasks.task import Example, distinct_examples, key_of
from shoestring.tasks.verify import Verifier

SUMS = """\
    from dataclasses import dataclass

    @dataclass
    class Sums:
        largest: int = 3

        def examples(self, split, seed):
            for n in range(1, self.largest + 1):
                yield {{"question": f"{{n}}+{{n}}=?", "answer": (n, 2 * n)}}

        def reward(self, example, text):
            {reward}
"""
RIGHT = "return str(example.answer[1]) in text"


@pytest.fixture
def sums(write):
    """The task with this body of its reward, and options."""

    def make(reward=RIGHT, **options):
        return load_task(write("sums.py", SUMS.format(reward=reward)), options)

    return make


def judge(task, texts, timeout_s=10.0):
    example = next(task.examples("train", 0))
    with Verifier({"own": task}, timeout_s=timeout_s) as verifier:
        for ticket, text in enumerate(texts):
            verifier.submit(ticket, "own", example, text)
        verdicts = sorted(verifier.results(wait=True), key=lambda verdict: verdict.ticket)
        return verdicts, verifier.fault_counts()


def test_its_examples_are_of_one_form_and_training_ones_do_not_end(sums):
    task = sums()
    assert task.name == "sums"
    first = next(task.examples("train", 0))
    assert first == Example(key=key_of("1+1=?"), question="1+1=?", answer=[1, 2])
    assert len(list(islice(task.examples("train", 0), 10))) == 10
    assert len(list(task.examples("test", 0))) == 3
    assert len(distinct_examples(sums(largest=5), "train", 0, 100)) == 5


def test_its_reward_runs_in_a_child_and_its_options_reach_it(sums):
    task = sums(largest=1)
    assert rebuild(describe(task)) == task
    verdicts, _ = judge(task, ["2", "5"])
    assert [verdict.reward for verdict in verdicts] == [1.0, 0.0]


@pytest.mark.parametrize(
    ("reward", "words"),
    [
        ("return 1 / 0", r"own: 2 x exception 'sums.py, line 12: ZeroDivisionError: division by zero'"),
        ("return 'yes'", r"sums.py, line 11: reward gives 'yes', which is no number"),
        ("return int(text)", r"own: 1 x exception .*sums.py, line 12: ValueError: invalid literal"),
        ("import sys; sys.exit()", "own: 2 x died"),
        ("while True: pass", "own: 2 x timeout"),
        ("return None", "own: 2 x undecided"),
    ],
)
def test_a_fault_says_file_and_line(sums, reward, words):
    import re

    verdicts, counts = judge(sums(reward), ["2", "two"], timeout_s=1.0)
    assert re.search(words, counts)
    assert verdicts[1].reward is None


def test_numbers_of_any_kind_are_rewards(sums):
    assert judge(sums("import numpy; return numpy.float32(0.5)"), ["2"])[0][0].reward == 0.5


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("yield 1 / 0", r"own.py failed: own.py, line 3: ZeroDivisionError"),
        ("yield 'one'", r"own.py, line 2: examples gives a str; it has to yield Example"),
        ("yield {'question': ' '}", r"own.py, line 2: the question of an example is ' '"),
        ("yield {'question': 'a', 'answr': 1}", r"own.py, line 2: an example is wrong: .*'answr'"),
        ("yield {'question': 'a', 'answer': {1}}", r"own.py, line 2: the answer of an example is a set"),
        ("return []", r"own.py, line 2: examples\('train', 0\) gives none"),
        ("return 3", r"own.py failed: .*TypeError: 'int' object is not iterable"),
    ],
)
def test_a_mistake_in_examples_is_one_sentence(write, body, words):
    text = f"class Own:\n    def examples(self, split, seed):\n        {body}\n"
    task = load_task(write("own.py", text + "    def reward(self, example, text):\n        return 1\n"))
    with pytest.raises(DataError, match=words) as caught:
        next(task.examples("train", 0))
    assert "\n" not in str(caught.value)


def test_wrong_options_are_named(sums, write):
    with pytest.raises(ConfigError, match="largezt"):
        sums(largezt=3)
    plain = "class Own:\n    def examples(self, split, seed): ...\n    def reward(self, example, text): ...\n"
    with pytest.raises(ConfigError, match="has no options; make the class a dataclass"):
        load_task(write("own.py", plain), {"a": 1})


def test_what_the_class_has_besides_is_used(write):
    text = """
    class Own:
        name = "mine"

        def examples(self, split, seed):
            yield {"question": "?", "answer": self.word}

        def reward(self, example, text):
            return self.loaded

        def vote(self, example, text):
            return text.strip().lower()

        def prepare(self):
            self.loaded = 0.25

        word = "w"
    """
    task = load_task(write("own.py", text))
    assert (task.name, task.vote(None, " A "), next(task.examples("test", 0)).answer) == ("mine", "a", "w")
    assert judge(task, ["x"])[0][0].reward == 0.25
