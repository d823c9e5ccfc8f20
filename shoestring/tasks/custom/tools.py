"""Tools that a model may call in a task of several turns: a calculator, and Python in the sandbox."""

import asyncio
import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

from shoestring.errors import ConfigError
from shoestring.sandbox.open import open_sandbox
from shoestring.sandbox.process import Limits, Sandbox
from shoestring.tasks.answers import evaluate
from shoestring.tasks.custom.source import load_own, sentence

Tool = Callable[..., Any]
"""A function with a type for each parameter and a docstring, by which the model knows it."""
MAX_RESULT_CHARS = 4000
"""Of a tool's result; what is longer is cut."""
PYTHON_LIMITS = Limits(wall_s=5.0)


def calculator(expression: str) -> str:
    """Compute an arithmetic expression exactly.

    Args:
        expression: Numbers, + - * / and parentheses, such as 3*(4+5)/2.
    """
    value = evaluate(expression)
    return "error: that is no expression of numbers, + - * / and ( )" if value is None else str(value)


def python(code: str) -> str:
    """Run a Python program and return what it prints.

    Args:
        code: The program. It has no network and no files of its own, and five seconds.
    """
    outcome = _sandbox().run(code, limits=PYTHON_LIMITS)
    status = "" if outcome.status == "ok" else f"[{outcome.status}, exit code {outcome.code}]"
    return f"{outcome.stdout}{status}" or "[it printed nothing; use print]"


BUILT_IN: Mapping[str, Tool] = {"calculator": calculator, "python": python}


def load_tools(names: Sequence[Any]) -> tuple[Tool, ...]:
    """The functions of tools that are given as functions, as names of ours, or as `file.py:name`.

    Raises ConfigError for what is none, and for two of one name.
    """
    tools: dict[str, Tool] = {}
    for name in names:
        function = name if callable(name) else _named(name)
        own = getattr(function, "__name__", str(name))
        if own in tools:
            raise ConfigError(f"two tools are called {own}; rename one")
        tools[own] = function
    return tuple(tools.values())


def call_tool(tools: Sequence[Tool], name: str, arguments: str) -> tuple[str, bool]:
    """The result of a call as text for the model, and whether it is an error of the call or of the tool.

    `arguments` is the JSON that the model wrote. Nothing that it wrote raises an error.
    """
    function = next((tool for tool in tools if tool.__name__ == name), None)
    if function is None:
        return f"error: there is no tool {name!r}; there are {', '.join(t.__name__ for t in tools)}", True
    try:
        values = json.loads(arguments or "{}")
    except (ValueError, RecursionError):
        return "error: the arguments are not JSON", True
    if not isinstance(values, dict):
        return "error: the arguments are no JSON object", True
    try:
        inspect.signature(function).bind(**values)
    except TypeError as error:
        return f"error: {error}", True
    try:
        result = function(**values)
        if inspect.isawaitable(result):
            result = asyncio.run(_wait(result))
        text = result if isinstance(result, str) else json.dumps(result, ensure_ascii=False)
        return text[:MAX_RESULT_CHARS], False
    except Exception as error:
        return f"error: {sentence(error)}"[:MAX_RESULT_CHARS], True


async def _wait(result: Any) -> Any:
    return await result


def _named(name: Any) -> Tool:
    if isinstance(name, str) and name in BUILT_IN:
        return BUILT_IN[name]
    if isinstance(name, str) and ":" in name:
        return _function(name)
    raise ConfigError(f"{name!r} is no tool; take a function, FILE.py:NAME, or one of {', '.join(BUILT_IN)}")


def _function(name: str) -> Tool:
    (value,) = load_own(name, kind="tool")
    function: Tool = value
    return function


@cache
def _sandbox() -> Sandbox:
    return open_sandbox()
