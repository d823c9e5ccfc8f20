"""Text that a library evaluates may be arithmetic and nothing else."""

import threading

import pytest

from shoestring.tasks.guard import RefusedCode, only_arithmetic


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os')", "open('/etc/passwd')", "().__class__", "[x for x in [1]]", "(lambda: 1)()",
        "abs.__self__",
        "getattr(1, 'real')", "exec('1')", "eval('1')", "x.real", "globals()", "[print]",
        "f'{answer}'", "breakpoint()",
    ],
)  # fmt: skip
def test_code_is_refused_before_it_runs(text):
    with only_arithmetic(), pytest.raises(RefusedCode):
        eval(text)  # noqa: S307


def test_statements_are_refused():
    with only_arithmetic(), pytest.raises(RefusedCode):
        exec("import os")  # noqa: S102


@pytest.mark.parametrize(
    ("text", "value"), [("1 + 2 * 3", 7), ("[[1, 2], ['a']]", [[1, 2], ["a"]]), ("abs(-1)", 1)]
)
def test_arithmetic_and_literals_are_not(text, value):
    with only_arithmetic():
        assert eval(text) == value  # noqa: S307


def test_it_ends_with_its_block_and_holds_for_its_thread():
    with only_arithmetic(), only_arithmetic():
        pass
    assert eval("len('ab')") == 2  # noqa: S307
    found = []
    with only_arithmetic():
        thread = threading.Thread(target=lambda: found.append(eval("len('ab')")))  # noqa: S307
        thread.start()
        thread.join()
    assert found == [2]


def test_modules_and_dataclasses_can_still_be_made():
    from dataclasses import make_dataclass

    with only_arithmetic():
        assert make_dataclass("Point", ["x"])(1).x == 1
