"""The parts of a task that have defaults."""

from itertools import count, cycle

from shoestring.tasks.task import Example, Problem, Task, distinct_examples


class Echo(Task):
    name = "echo"

    def examples(self, split, seed):
        yield Example(key="k", question="q", answer="a")

    def reward(self, example, text):
        return float(text == example.answer)


def test_without_a_vote_of_its_own_a_task_counts_answers_as_text():
    example = Example(key="k", question="q", answer=None)
    assert Echo().vote(example, "<think>a b</think> is \n 4 ") == "is 4"
    assert Echo().vote(example, "<think>only thoughts") is None


def test_a_task_is_judged_in_a_child_unless_it_says_that_it_is_pure():
    assert not Echo().is_pure
    assert Echo().prepare() is None


class Numbers(Echo):
    """Examples with these keys, one after the other."""

    def __init__(self, keys):
        self.keys = keys

    def examples(self, split, seed):
        return (Example(key=str(key), question="q", answer=None) for key in self.keys)


def test_distinct_examples_come_once_in_their_order_and_a_repeating_task_ends():
    assert [e.key for e in distinct_examples(Numbers([1, 1, 2, 1, 3]), "train", 0, 2)] == ["1", "2"]
    assert [e.key for e in distinct_examples(Numbers(count()), "train", 0, 3)] == ["0", "1", "2"]
    assert [e.key for e in distinct_examples(Numbers(cycle("ab")), "train", 0, 3)] == ["a", "b"]


def test_a_problem_is_known_by_its_task_and_key():
    example = Example(key="k", question="q", answer=None)
    assert Problem(task="echo", example=example).id == "echo/k"
