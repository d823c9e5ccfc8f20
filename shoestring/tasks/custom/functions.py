"""Reward functions as TRL's GRPOTrainer calls them: many completions in, a list of numbers or None out."""

import asyncio
import inspect
import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from shoestring.errors import ConfigError
from shoestring.tasks.custom.source import line_of, load_own

ARGUMENTS = ("prompts", "completions", "completion_ids", "trainer_state", "log_extra", "log_metric")
"""Arguments of every function, besides the columns of the data."""

STATE: Mapping[str, Any] = {"global_step": 0, "max_steps": 0, "epoch": 0.0, "is_world_process_zero": True}
"""The trainer's state outside of a training."""


@dataclass(kw_only=True)
class Outcome:
    """Rewards and notes of the functions for a batch of completions."""

    rewards: list[list[float | None]] = field(default_factory=list)
    """Of each function, one for each completion; None where the function does not apply."""
    metrics: dict[str, float] = field(default_factory=dict)
    """Means of the figures that functions logged."""
    extra: dict[str, list[Any]] = field(default_factory=dict)
    """Columns that functions logged, one value for each completion."""


def load_functions(names: Sequence[str]) -> dict[str, Callable[..., Any]]:
    """The functions of `file.py:name`, `file.py` (all in it) or `module:name`, by their own names."""
    functions: dict[str, Callable[..., Any]] = {}
    for name in names:
        for function in load_own(name):
            if isinstance(function, type):
                raise ConfigError(f"{name} is a task and no reward function; give it as the name of a task")
            own = getattr(function, "__name__", None) or name.rpartition(":")[2]
            if own in functions:
                raise ConfigError(f"two reward functions are called {own}; rename one")
            functions[own] = function
    return functions


def missing_columns(function: Callable[..., Any], columns: Sequence[str]) -> list[str]:
    """Parameters without a default that are neither given to every function nor a column."""
    empty, kinds = inspect.Parameter.empty, (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    names = [
        name
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.default is empty and parameter.kind not in kinds
    ]
    return [name for name in names if name not in ARGUMENTS and name not in columns]


def reads_messages(function: Callable[..., Any], columns: Mapping[str, list[Any]]) -> bool:
    """Return whether a function reads a completion as a list of messages: it fails on one that is text."""
    try:
        call_all({"": function}, {"": columns}, {})
    except TypeError as error:
        return "string indices must be integers" in str(error)
    except Exception:
        return False
    return False


def call_all(
    functions: Mapping[str, Callable[..., Any]],
    columns: Mapping[str, Mapping[str, list[Any]]],
    state: Mapping[str, Any],
) -> Outcome:
    """Call each function with its columns, `prompts` and `completions` among them; async ones at once.

    A function gets the arguments that it names, or all of them if it takes `**kwargs`. Raises what a function
    raises, and TypeError or ValueError, naming its line, for what is no list of one number for each
    completion.
    """
    outcome, figures = Outcome(), defaultdict[str, list[float]](list)
    extra = defaultdict[str, list[Any]](list)
    more: dict[str, Any] = {
        "trainer_state": SimpleNamespace(**{**STATE, **state}),
        "log_extra": lambda column, values: extra[column].extend(values),
        "log_metric": lambda name, value: figures[name].append(float(value)),
    }
    results: dict[str, Any] = {
        name: function(**_accepted(function, {**columns[name], **more}))
        for name, function in functions.items()
    }
    waiting = {name: result for name, result in results.items() if inspect.isawaitable(result)}
    if waiting:
        results |= dict(zip(waiting, asyncio.run(_gather(waiting)), strict=True))
    count = max((len(own["completions"]) for own in columns.values()), default=0)
    for name, function in functions.items():
        outcome.rewards.append(_numbers(results[name], count, function))
    outcome.metrics = {name: sum(values) / len(values) for name, values in figures.items()}
    outcome.extra = {column: values for column, values in extra.items() if len(values) == count}
    return outcome


async def _gather(waiting: Mapping[str, Any]) -> list[Any]:
    return await asyncio.gather(*waiting.values())


def _accepted(function: Callable[..., Any], arguments: Mapping[str, Any]) -> Mapping[str, Any]:
    parameters = inspect.signature(function).parameters
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values()):
        return arguments
    return {name: value for name, value in arguments.items() if name in parameters}


def _numbers(result: Any, count: int, function: Callable[..., Any]) -> list[float | None]:
    """One number or None for each completion; NaN is None, as it is in TRL."""
    values = result.tolist() if hasattr(result, "tolist") else result
    if not isinstance(values, list | tuple):
        raise TypeError(f"{line_of(function)}: it gives a {type(values).__name__}, not a list of rewards")
    if len(values) != count:
        raise ValueError(f"{line_of(function)}: it gives {len(values)} rewards for {count} completions")
    numbers: list[float | None] = []
    for value in values:
        try:
            number = None if value is None else float(value)
        except (TypeError, ValueError):
            raise TypeError(
                f"{line_of(function)}: it gives {repr(value)[:60]} as a reward, which is no number"
            ) from None
        numbers.append(None if number is None or math.isnan(number) else number)
    return numbers
