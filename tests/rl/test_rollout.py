"""The stream of problems, which a checkpoint continues by their number."""

from collections import Counter

from shoestring.rl.recipe import GRPOConfig, RewardConfig, TaskShare
from shoestring.rl.rollout import ProblemStream, reward_parts


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


def test_a_reward_has_the_parts_that_the_recipe_names():
    text = "<think>two and two</think>4"
    assert reward_parts(1.0, text, RewardConfig()) == {"accuracy": 1.0}
    both = RewardConfig(format=0.5, language="en", language_weight=0.2)
    assert reward_parts(0.0, text, both) == {"accuracy": 0.0, "format": 0.5, "language": 0.2}
