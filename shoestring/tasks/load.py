"""A task by its name and options; only the module that is asked for is imported."""

import importlib
from collections.abc import Mapping
from typing import Any

from shoestring import config
from shoestring.errors import ConfigError
from shoestring.tasks.task import Task

TASKS = {
    "arithmetic": "shoestring.tasks.arithmetic:Arithmetic",
    "code": "shoestring.tasks.code:Code",
    "countdown": "shoestring.tasks.countdown:Countdown",
    "greeting": "shoestring.tasks.greeting:Greeting",
    "gsm8k": "shoestring.tasks.gsm8k:Gsm8k",
    "math": "shoestring.tasks.math:Math",
}
GYM = "reasoning_gym:"


def load_task(name: str, options: Mapping[str, Any] | None = None) -> Task:
    """The task `name`; `reasoning_gym:<generator>` is that generator of the library's.

    Raises ConfigError, listing what there is, for a wrong name, option or value, and MissingDependencyError
    when the library of a task is not installed.
    """
    return build(target_of(name), name, options or {})


def target_of(name: str) -> str:
    """Where a task's class is, as `module:Class`."""
    if name.startswith(GYM) and name != GYM:
        return "shoestring.tasks.gym:Gym"
    if name not in TASKS:
        raise ConfigError(f"no task {name!r}; there are {', '.join(TASKS)} and {GYM}<generator>")
    return TASKS[name]


def build(target: str, name: str, options: Mapping[str, Any]) -> Task:
    """Import the class and fill in its options; `target` is one of ours, never a stranger's words."""
    module, _, class_name = target.partition(":")
    cls = getattr(importlib.import_module(module), class_name)
    data = dict(options)
    if name.startswith(GYM):
        data = {"generator": name.removeprefix(GYM), "options": data}
    task: Task = config.build(cls, data, where=f"the task {name}")
    return task
