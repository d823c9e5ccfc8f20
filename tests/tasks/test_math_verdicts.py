"""The table of verdicts of math: answer, reply and the reward that is right."""

import pytest

from shoestring.tasks.math import Math
from shoestring.tasks.task import Example


def test_no_reward_is_wrong(verdicts):
    pytest.importorskip("math_verify")
    task = Math(path="unused")
    for row in verdicts("math"):
        example = Example(key="k", question="q", answer=row["answer"])
        assert task.reward(example, row["reply"]) == row["reward"], row
