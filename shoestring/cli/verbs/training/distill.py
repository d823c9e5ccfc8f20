"""`shoestring distill`: train a student on a teacher's verified answers, or on its probabilities."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shoestring.cli.options import Device, Json, Out, Quiet, Settings
from shoestring.cli.output import print_fields, print_json, progress
from shoestring.cli.recipes import own_recipe

if TYPE_CHECKING:
    from shoestring.distill.distill import DistillConfig


def distill(
    recipe: Annotated[Path | None, typer.Argument(help="A recipe (TOML), such as those in recipes/.")] = None,
    *,
    teacher: Annotated[
        str, typer.Option(help="A folder, org/name, or the URL of an OpenAI-compatible server.")
    ] = "",
    student: Annotated[str, typer.Option(help="A folder, org/name, or a preset (random weights).")] = "",
    out: Out = Path("runs/distill"),
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in --out.")] = False,
    settings: Settings = [],  # noqa: B006 (typer copies it)
    device: Device = "auto",
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Train a student on a teacher's answers or on its probabilities.

    Ctrl-C saves the run and exits with 75; --resume continues it and never asks the teacher twice. The API
    key of a server comes from the environment variable named by remote.key_env. --set remote.cost_cap=5
    (with remote.price_in and price_out per million tokens) limits the cost.
    """
    from shoestring.device import choose
    from shoestring.distill import distill as distillation

    config = load_recipe(recipe, teacher, student, out, resume, settings)
    runtime = choose(device)
    report = distillation.distill(config, runtime, out, resume=resume, quiet=quiet, say=progress(quiet))
    if as_json:
        print_json(report)
        return
    for part in ("collected", "training"):
        print_fields({k: v for k, v in report[part].items() if not isinstance(v, dict)})
    print(f"the student is in {out / 'student' / 'model'}; try: shoestring run {out / 'student' / 'model'}")


def load_recipe(
    recipe: Path | None, teacher: str, student: str, out: Path, resume: bool, settings: list[str]
) -> "DistillConfig":
    """The recipe with teacher and student; on --resume the run's own, in which --set may change fields."""
    from shoestring import config as configs
    from shoestring.distill.distill import DistillConfig
    from shoestring.errors import ConfigError

    if resume and (recipe is not None or teacher or student):
        raise ConfigError(
            f"--resume takes the recipe from {out / 'config.toml'}; "
            "leave out the recipe, --teacher and --student"
        )
    models = {"teacher": teacher, "student": student}
    settings = [
        f"{name}={json.dumps(text, ensure_ascii=False)}" for name, text in models.items() if text
    ] + settings
    source = own_recipe(out) if resume else recipe
    if source is None:
        return configs.build(DistillConfig, configs.override({}, settings), where="--set")
    return configs.load(DistillConfig, source, settings)
