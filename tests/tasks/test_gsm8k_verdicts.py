"""The table of verdicts of gsm8k: answer, reply and the reward that is right."""

from shoestring.tasks.gsm8k import Gsm8k
from shoestring.tasks.task import Example


def test_no_reward_is_wrong(verdicts):
    task = Gsm8k(path="unused")
    for row in verdicts("gsm8k"):
        example = Example(key="k", question="q", answer=row["answer"])
        assert task.reward(example, row["reply"]) == row["reward"], row
