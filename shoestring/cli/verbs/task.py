"""`shoestring task`: write a task of your own, look at its problems and rewards, and check it."""

from typing import Annotated, Any

import typer

from shoestring.cli.options import Json
from shoestring.cli.output import print_fields, print_json

app = typer.Typer(help="Write and check tasks of your own.", no_args_is_help=True, rich_markup_mode=None)

Name = Annotated[
    str,
    typer.Argument(
        help="FILE.py, FILE.py:NAME, module:NAME or a built-in task; options after commas: "
        "rewards.py,data=FILE.jsonl."
    ),
]


@app.callback()
def task() -> None:
    """Write and check tasks of your own."""


@app.command()
def new(name: Annotated[str, typer.Argument(help="The file to write, such as my_task.py.")]) -> None:
    """Write a small task that works, with a comment for each part; edit it into yours."""
    from shoestring.tasks.custom.template import write_template

    path = write_template(name)
    print(f"wrote {path}; look at it with: shoestring task show {path}")


@app.command()
def show(
    name: Name,
    *,
    reply: Annotated[
        list[str], typer.Option(help="Judge this reply to the first problem shown; repeatable.")
    ] = [],  # noqa: B006 (typer copies it)
    count: Annotated[int, typer.Option(min=1, help="Problems to show.")] = 3,
    split: Annotated[str, typer.Option(help="train or test.")] = "train",
    seed: Annotated[int, typer.Option(help="Seed of their order.")] = 0,
    as_json: Json = False,
) -> None:
    """Show some problems of a task, and the rewards of replies to the first of them.

    What your reward prints is shown here; a run shows none of it.
    """
    from shoestring.cli.tasks import read_task
    from shoestring.errors import ConfigError
    from shoestring.tasks.custom.check import as_text, judge
    from shoestring.tasks.load import load_task
    from shoestring.tasks.task import distinct_examples

    if split not in ("train", "test"):
        raise ConfigError(f"--split {split} is neither train nor test")
    own = load_task(*read_task(name))
    examples = distinct_examples(own, "test" if split == "test" else "train", seed, count)
    if not examples:
        raise ConfigError(f"the {split} split of {name} has no problem")
    verdicts = judge(own, examples[0], reply, shows_prints=True)
    if as_json:
        from dataclasses import asdict

        rows = [asdict(example) for example in examples]
        judgments = [{"reply": text, **asdict(v)} for text, v in zip(reply, verdicts, strict=True)]
        print_json({"examples": rows, "verdicts": judgments})
        return
    if own.tools:
        print_fields({"tools": ", ".join(tool.__name__ for tool in own.tools), "turns": own.max_turns})
        print()
    for number, example in enumerate(examples):
        print_fields({"question": example.question, "answer": as_text(example.answer)})
        for text, verdict in zip(reply, verdicts, strict=True):
            if number == 0:
                print_fields({"reply": text, "reward": _words(verdict)})
        print()


@app.command()
def check(name: Name, *, as_json: Json = False) -> None:
    """Check a task: its examples, splits, and rewards for odd replies; exit with 3 if a check fails."""
    from dataclasses import asdict

    from shoestring.cli.tasks import read_task
    from shoestring.errors import ThresholdError
    from shoestring.tasks.custom.check import check_task
    from shoestring.tasks.load import load_task

    findings = list(check_task(load_task(*read_task(name)), name))
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        for finding in findings:
            print(f"{'ok  ' if finding.ok else 'FAIL'}  {finding.name}: {finding.text}")
    if failures := [finding.name for finding in findings if not finding.ok]:
        raise ThresholdError(f"the task {name} fails: {', '.join(failures)}")


def _words(verdict: Any) -> str:
    """A verdict in a few words."""
    if verdict.fault:
        return f"none ({verdict.fault})"
    parts = ", ".join(f"{name} {value:g}" for name, value in verdict.parts.items())
    return f"{verdict.reward}" + (f" ({parts})" if parts else "")
