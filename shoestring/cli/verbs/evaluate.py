"""`shoestring eval`: evaluate a model on text, on a task or with lm-evaluation-harness; repeat a score."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shoestring.cli.options import Device, Json
from shoestring.cli.output import print_fields, print_json, print_table
from shoestring.errors import ConfigError

if TYPE_CHECKING:
    from shoestring.evals.evaluate import Subject


def evaluate(
    model: Annotated[
        str | None, typer.Argument(help="A folder, org/name, org/name@revision or MODEL+ADAPTER.")
    ] = None,
    *,
    task: Annotated[
        str | None,
        typer.Option(
            help="A task with verified answers, reasoning_gym:NAME, lm_eval:NAME[,NAME...] or your own, "
            "FILE.py[:NAME]; options follow after commas, such as countdown,numbers=4."
        ),
    ] = None,
    source: Annotated[
        list[str], typer.Option(help="Text to score: folder, file, glob, dataset id or stdlib; repeatable.")
    ] = [],  # noqa: B006 (typer copies it)
    reproduce: Annotated[
        Path | None, typer.Option(help="Repeat the score in this file; exit with 3 unless it is the same.")
    ] = None,
    settings: Annotated[
        list[str],
        typer.Option(
            "--set", help="A setting, such as samples=8, options.numbers=4, above=0.8 or below=2; repeatable."
        ),
    ] = [],  # noqa: B006
    out: Annotated[
        Path | None,
        typer.Option(help="Write the score to this .json file, a task's answers beside it (.jsonl)."),
    ] = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Evaluate a model on text, on a task or with lm-eval.

    Text gives bits per byte on the part of the sources that pretraining holds out; a task gives pass@k and
    maj@k; lm-evaluation-harness gives its own figures. docs/reference.md lists the settings (TextEvalConfig,
    TaskEvalConfig, HarnessConfig). They are stored with the score, so --reproduce can repeat it.
    """
    from shoestring.evals.evaluate import check_thresholds
    from shoestring.evals.manifest import write_score

    if reproduce is not None:
        if source or settings:
            raise ConfigError("--reproduce takes everything from its file; leave out --source and --set")
        score = repeat_score(reproduce, model, task, device)
    elif model is None:
        raise ConfigError("eval needs a model: a folder, org/name, or --reproduce with the file of a score")
    elif task and source:
        raise ConfigError("--task and --source are two scores; give one at a time")
    else:
        score = take_score(model, task, source, settings, out, device)
    if out is not None:
        write_score(out, score)
    print_json(score) if as_json else show(score)
    check_thresholds(score)


def take_score(
    model: str, task: str | None, source: list[str], settings: list[str], out: Path | None, device: str
) -> dict[str, Any]:
    """The manifest of a new score with its result."""
    from shoestring.cli.tasks import eval_settings
    from shoestring.config import override
    from shoestring.evals.evaluate import TEXT, build_config
    from shoestring.evals.evaluate import evaluate as evaluate_model

    if out is not None and out.suffix != ".json":
        raise ConfigError(f"--out {out} must be a file that ends in .json")
    if task is not None:
        task, options = eval_settings(task)
        settings = options + settings
    data = override({}, settings)
    if task is None and source:
        data["sources"] = source
    config = build_config(task or TEXT, data, "--set")
    transcripts = None if out is None else out.with_suffix(".jsonl")
    with open_subject(model, device) as subject:
        return evaluate_model(task or TEXT, config, subject, transcripts=transcripts, show=True)


def repeat_score(path: Path, model: str | None, task: str | None, device: str) -> dict[str, Any]:
    """The score in a file taken again; stderr says what has changed around it.

    A file cannot make us run Python: a task of one's own in it has to be named by the user too.
    """
    from shoestring.evals.evaluate import repeat
    from shoestring.evals.manifest import read_score
    from shoestring.tasks.custom.source import is_own

    manifest = read_score(path)
    name = manifest["name"]
    if task is not None and task != name:
        raise ConfigError(f"--task {task} is not the task of {path}; leave it out, --reproduce takes {name}")
    if task is None and is_own(name):
        raise ConfigError(f"the score in {path} is of {name}, which is Python; --task {name} runs it")
    with open_subject(model or manifest["model"]["name"], device) as subject:
        repetition = repeat(manifest, subject, where=str(path), show=True)
    for change in repetition.changes:
        print(f"changed since that score: {change}", file=sys.stderr)
    return repetition.score


@contextmanager
def open_subject(model: str, device: str) -> "Iterator[Subject]":
    """The model to evaluate, with a progress bar while it loads."""
    from shoestring.cli.weights import progress_bar
    from shoestring.device import choose
    from shoestring.engine.offline.plan import find_checkpoint
    from shoestring.evals.evaluate import Subject

    runtime, checkpoint = choose(device), find_checkpoint(model)
    with progress_bar(f"loading {checkpoint.folder.name}") as progress:
        yield Subject(name=model, checkpoint=checkpoint, runtime=runtime, progress=progress)


def show(score: dict[str, Any]) -> None:
    """Print a score as a table."""
    from shoestring.evals.evaluate import HARNESS, TEXT

    result = score["result"]
    if score["name"] == TEXT:
        print_fields(result)
        if result.get("documents_there", 0) > result.get("documents", 0):
            share = result["utf8_bytes"] / max(result["utf8_bytes_there"], 1)
            print(f"these are {share:.1%} of the bytes; --set max_tokens=0 reads all")
    elif score["name"].startswith(HARNESS):
        rows = [
            [task, name, f"{value:.4f}"]
            for task, row in result.items()
            for name, value in row["figures"].items()
        ]
        print_table(["task", "figure", "value"], rows)
    else:
        print(f"{result['task']}: {result['problems']} problems, {result['samples']} answers to each")
        values = {
            f"{name}_{k}": result[f"{name}_k"][k]
            for name in ("pass_at", "maj_at", "best_at")
            for k in result.get(f"{name}_k", {})
        }
        values |= {name: value for name, value in result.items() if name in result["intervals"]} | values
        values |= result.get("figures", {})
        rows = [
            [name, f"{value:.4f}", *(f"{end:.4f}" for end in result["intervals"][name])]
            for name, value in values.items()
        ]
        print_table(["figure", "mean", "from", "to (95%)"], rows)
        if result.get("overlong"):
            print(f"problems whose prompts do not fit into the context: {result['overlong']}")
        if result["faults"]:
            print(f"answers without a verdict: {result['faults']}")
    if "differs" in score and not score["differs"]:
        print("the same as before, to the last bit")
