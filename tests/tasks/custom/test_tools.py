"""Tools: what a model writes never raises, results are text, and calls run in a child within their time."""

import json

import pytest

from shoestring.errors import ConfigError
from shoestring.tasks.custom.tools import MAX_RESULT_CHARS, calculator, call_tool, load_tools, python
from shoestring.tasks.load import load_task
from shoestring.tasks.verify import ToolCall, Verifier


def weather(city: str, days: int = 1) -> dict:
    """Get the weather."""
    return {"city": city, "degrees": [20] * days}


async def later(text: str) -> str:
    return text * MAX_RESULT_CHARS


def broken(x: int) -> int:
    return x // 0


TOOLS = (calculator, weather, later, broken)


@pytest.mark.parametrize(
    ("name", "arguments", "text"),
    [
        ("calculator", {"expression": "3*(4+5)/2"}, "27/2"),
        ("weather", {"city": "Köln"}, '{"city": "Köln", "degrees": [20]}'),
        ("later", {"text": "ab"}, "ab" * (MAX_RESULT_CHARS // 2)),
    ],
)
def test_a_result_is_text(name, arguments, text):
    assert call_tool(TOOLS, name, json.dumps(arguments)) == (text, False)


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("calculater", "{}", "there is no tool 'calculater'; there are calculator, weather"),
        ("calculator", "{expression", "the arguments are not JSON"),
        ("calculator", "[" * 100_000, "the arguments are not JSON"),
        ("calculator", "[1]", "no JSON object"),
        ("calculator", "", "missing a required argument: 'expression'"),
        ("calculator", '{"expression": "1", "x": 2}', "unexpected keyword argument 'x'"),
        ("calculator", '{"expression": 3}', "error"),
        ("broken", '{"x": 1}', "test_tools.py, line"),
    ],
)
def test_nothing_that_a_model_writes_raises(name, arguments, words):
    text, is_error = call_tool(TOOLS, name, arguments)
    assert is_error
    assert words in text
    assert text.startswith("error: ")


def test_no_expression_is_a_result_that_says_so():
    assert call_tool(TOOLS, "calculator", '{"expression": "2**9"}')[0].startswith(
        "error: that is no expression"
    )


def test_python_runs_in_the_sandbox():
    assert call_tool((python,), "python", '{"code": "print(6*7)"}') == ("42\n", False)
    assert "[exit, exit code 1]" in call_tool((python,), "python", '{"code": "1/0"}')[0]
    assert "printed nothing" in call_tool((python,), "python", '{"code": "x = 1"}')[0]


def test_tools_are_functions_names_of_ours_or_in_a_file(write):
    file = write("t.py", "def double(x: int) -> int:\n    return 2 * x\n")
    assert [tool.__name__ for tool in load_tools([weather, "calculator", f"{file}:double"])] == [
        "weather", "calculator", "double"
    ]  # fmt: skip
    for names, words in (
        (["calc"], "'calc' is no tool"),
        ([weather, weather], "two tools"),
        ([3], "3 is no"),
    ):
        with pytest.raises(ConfigError, match=words):
            load_tools(names)


TASK = """
import time

def double(x: int) -> int:
    "Double."
    if x == 9:
        time.sleep(60)
    return 2 * x

class Own:
    tools = [double, "calculator"]

    def examples(self, split, seed):
        yield {"question": "?"}

    def reward(self, example, text):
        return 1.0
"""


def test_calls_run_in_a_child_within_their_time(write):
    task = load_task(write("own.py", TASK))
    assert ([tool.__name__ for tool in task.tools], task.max_turns) == (["double", "calculator"], 5)
    calls = [("double", '{"x": 3}'), ("double", '{"x": 9}'), ("calculator", '{"expression": "1+1"}')]
    with Verifier({"own": task}, timeout_s=1.0) as verifier:
        verifier.submit(0, "own", next(task.examples("train", 0)), "reply")
        results = verifier.call_tools(
            [ToolCall(task="own", name=name, arguments=arguments) for name, arguments in calls]
        )
        assert [verdict.reward for verdict in verifier.results(wait=True)] == [1.0]
    assert [(result.text, result.is_error) for result in results] == [
        ("6", False), ("error: the tool gave no result (timeout)", True), ("2", False)
    ]  # fmt: skip
