"""The stream of problems, which a checkpoint continues by their number, with prompts that fit."""

import itertools
from collections import Counter

import pytest

from shoestring.errors import ConfigError, DataError
from shoestring.rl.problems import ProblemStream
from shoestring.rl.recipe import GRPOConfig, TaskShare
from shoestring.tasks.task import Example
from shoestring.tokenizer.overlong import PromptMaker
from shoestring.tokenizer.questions import QuestionPrompt


def stream() -> ProblemStream:
    tasks = (TaskShare(name="countdown"), TaskShare(name="arithmetic", share=0.25))
    return ProblemStream(GRPOConfig(model="m", tasks=tasks, seed=3))


def test_a_stream_is_continued_by_drawing_as_many_problems_again():
    whole, continued = stream(), stream()
    problems = whole.draw(5) + whole.draw(7)
    continued.draw(5)
    assert continued.num_drawn == 5
    assert continued.draw(7) == problems[5:]
    assert whole.num_drawn == 12


def test_tasks_are_drawn_by_their_shares():
    counts = Counter(problem.task for problem in stream().draw(500))
    assert 60 < counts["arithmetic"] < 140
    assert counts.total() == 500


class Lengths(PromptMaker):
    """Prompts as long as the number in the question, in a context of ten."""

    def __init__(self, overlong="filter"):
        super().__init__(
            make=lambda question: QuestionPrompt((0,) * int(question), ""),
            tokenizer=None,
            context=10,
            max_tokens=4,
            overlong=overlong,
        )


def numbers(lengths: list[int]) -> ProblemStream:
    numbered = stream()
    numbered._shares, numbered._examples = [1.0], {"numbers": map(example, itertools.cycle(lengths))}
    return numbered


def example(length: int) -> Example:
    return Example(key=str(length), question=str(length), answer=length)


def test_problems_that_do_not_fit_are_replaced_by_the_next_ones():
    problems, prompts = numbers([3, 30, 4, 40, 50, 5, 6]), Lengths()
    drawn = problems.draw_prompted(3, prompts)
    assert [len(one.prompt.ids) for one in drawn] == [3, 4, 5]
    assert (problems.num_drawn, prompts.num_prompts, prompts.num_overlong) == (6, 6, 3)
    continued = numbers([3, 30, 4, 40, 50, 5, 6])
    continued.draw(6)
    assert continued.draw_prompted(2, Lengths()) == problems.draw_prompted(2, prompts)


def test_a_stream_in_which_nothing_fits_ends():
    with pytest.raises(DataError, match=r"last 1,000 problems do not fit .* --set overlong=truncate"):
        numbers([30]).draw_prompted(1, Lengths())
    with pytest.raises(ConfigError, match=r"prompt of numbers/30 has 30 tokens"):
        numbers([3, 30]).draw_prompted(2, Lengths("error"))
