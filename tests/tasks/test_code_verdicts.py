"""The table of verdicts of code: outputs and results that are equal or not, and whole programs."""

import pytest

from shoestring.errors import MissingDependencyError
from shoestring.tasks.code import Code
from shoestring.tasks.task import Example
from shoestring.tasks.values.checker import same_output, same_result


def test_no_comparison_of_outputs_is_wrong(verdicts):
    rows = [row for row in verdicts("code") if "program" not in row]
    for row in rows:
        if "printed" in row:
            is_same = same_output(row["printed"], row["right"], is_strict=row.get("strict", False))
        else:
            is_same = same_result(row["result"], row["right"])
        assert is_same == row["same"], row


def test_no_reward_of_a_whole_program_is_wrong(verdicts):
    try:
        task = Code(limit_s=30.0)
    except MissingDependencyError as error:
        pytest.skip(str(error))
    with task.sandbox:
        for row in verdicts("code"):
            if "program" not in row:
                continue
            if "function" in row:
                case = {"arguments": row["arguments"], "result": row["right"]}
            else:
                case = {"stdin": row["stdin"], "stdout": row["right"]}
            answer = {"cases": [case], "visible": 0, "function": row.get("function")}
            example = Example(key="k", question="q", answer=answer)
            assert task.reward(example, f"```python\n{row['program']}\n```") == row["reward"], row
