"""Load a task by its name and options, or from the description that another process sent.

A name is that of a built-in task, `reasoning_gym:<generator>`, or Python of one's own: `file.py`,
`file.py:Name` or `module:Name`, a class with a task's methods or a reward function as TRL has them.
"""

import importlib
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from shoestring import config
from shoestring.errors import ConfigError
from shoestring.tasks.custom.source import is_own, is_task, load_own
from shoestring.tasks.task import Task

TASKS = {
    "arithmetic": "shoestring.tasks.arithmetic:Arithmetic",
    "code": "shoestring.tasks.code:Code",
    "countdown": "shoestring.tasks.countdown:Countdown",
    "greeting": "shoestring.tasks.greeting:Greeting",
    "gsm8k": "shoestring.tasks.gsm8k:Gsm8k",
    "ifeval": "shoestring.tasks.ifeval:IfEval",
    "math": "shoestring.tasks.math:Math",
    "judge": "shoestring.tasks.custom.judge:Judge",
    "multiple_choice": "shoestring.tasks.multiple_choice:MultipleChoice",
    "prompts": "shoestring.tasks.custom.prompts:Prompts",
}
CUSTOM_TASK = "shoestring.tasks.custom.custom_task:CustomTask"
GYM = "reasoning_gym:"
GYM_TASK = "shoestring.tasks.gym:Gym"


def load_task(name: str, options: Mapping[str, Any] | None = None) -> Task:
    """The task `name`, from its own module alone; `reasoning_gym:<generator>` is a generator of that library.

    Python of one's own is imported: it is trusted as the command line is. Raises ConfigError, listing what
    there is, for a wrong name, option or value, and with file and line for a mistake in one's own file;
    MissingDependencyError when the library of a task is not installed.
    """
    fields, generator = dict(options or {}), name.removeprefix(GYM)
    if name.startswith(GYM) and generator:
        return _build(GYM_TASK, {"generator": generator, "options": fields}, name)
    if name not in TASKS and is_own(name):
        return _own_task(name, fields)
    if name not in TASKS:
        raise ConfigError(
            f"no task {name!r}; there are {', '.join(TASKS)}, {GYM}<generator>, and files of your own, "
            "FILE.py or FILE.py:NAME (`shoestring task new FILE.py` writes one)"
        )
    return _build(TASKS[name], fields, name)


def _own_task(name: str, fields: dict[str, Any]) -> Task:
    """The task of a class, or of reward functions, in the user's Python."""
    if is_task(load_own(name)[0]):
        return _build(CUSTOM_TASK, {"source": name, "options": fields}, name)
    return _build(TASKS["prompts"], {"functions": (name,), **fields}, name)


def describe(task: Task) -> dict[str, Any]:
    """A task as JSON: its class and its fields. Every task that is not pure is a dataclass for this."""
    cls = type(task)
    return {"target": f"{cls.__module__}:{cls.__qualname__}", "fields": asdict(task)}  # type: ignore[call-overload]


def rebuild(description: Mapping[str, Any]) -> Task:
    """The task that `describe` described, in the child process that judges it."""
    return _build(description["target"], description["fields"], description["target"])


def _build(target: str, fields: Mapping[str, Any], name: str) -> Task:
    """Import the class `module:Class` and fill in its fields; `target` never comes from a user or a model."""
    module, _, class_name = target.partition(":")
    cls = getattr(importlib.import_module(module), class_name)
    task: Task = config.build(cls, dict(fields), where=f"the task {name}")
    return task
