"""The parts of a task that have defaults."""

from shoestring.tasks.task import Example, Task


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
