"""The task files in recipes/ work as they are."""

import runpy
from pathlib import Path

from shoestring.tasks.custom.check import check_task
from shoestring.tasks.load import load_task

RECIPES = Path(__file__).parents[2] / "recipes"


def test_the_calculator_is_a_task_that_passes_all_checks():
    file = RECIPES / "calculator.py"
    runpy.run_path(str(file))["test_the_right_number_is_rewarded"]()
    task = load_task(str(file))
    assert ([tool.__name__ for tool in task.tools], task.max_turns) == (["calculator"], 3)
    findings = list(check_task(task, "calculator"))
    assert all(finding.ok for finding in findings), findings
