"""The option `--task`: a task's name, and options after commas: `rewards.py:short,data=prompts.jsonl`."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

OPTION = re.compile(r",(?=\s*[A-Za-z_][\w.-]*\s*=)")
"""A comma that an option may follow, outside of brackets and quotes."""
NESTED = re.compile(r'"(?:\\.|[^"\\])*"|[\[{]|[\]}]|,')
"""A text in quotes, a bracket or a comma."""
Tasks = Annotated[
    list[str],
    typer.Option(
        "--task",
        help="A task by name, or your own: FILE.py, FILE.py:NAME or module:NAME; options follow "
        "after commas, such as countdown,numbers=4 or rewards.py,data=FILE.jsonl. Repeatable.",
    ),
]


def read_task(text: str) -> tuple[str, dict[str, Any]]:
    """The name and the options of a task. Raises ConfigError for an option that is no name=value."""
    from shoestring.config import override

    name, *options = _parts(text)
    return name.strip(), override({}, options)


def _parts(text: str) -> list[str]:
    """The text cut at the commas before options; those within lists, tables and quotes are their own."""
    parts, depth, start = [], 0, 0
    for match in NESTED.finditer(text):
        depth += (match[0] in "[{") - (match[0] in "]}")
        if match[0] == "," and depth == 0 and OPTION.match(text, match.start()):
            parts.append(text[start : match.start()])
            start = match.end()
    return [*parts, text[start:]]


def rl_settings(tasks: Sequence[str]) -> list[str]:
    """The `--set` of a recipe for rl that these tasks are; none without any."""
    rows = [{"name": name, "options": options} for name, options in map(read_task, tasks)]
    return [f"tasks={inline(rows)}"] if rows else []


def eval_settings(task: str) -> tuple[str, list[str]]:
    """The name of a task to score, and the `--set` that its options are; those of lm-eval have none."""
    if task.startswith("lm_eval:"):
        return task, []
    name, options = read_task(task)
    return name, [f"options.{key}={inline(value)}" for key, value in options.items()]


def inline(value: Any) -> str:
    """A value in TOML, on one line."""
    if isinstance(value, Mapping):
        pairs = (f"{inline(str(name))} = {inline(item)}" for name, item in value.items())
        return f"{{{', '.join(pairs)}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(inline, value))}]"
    return json.dumps(value, ensure_ascii=False)
