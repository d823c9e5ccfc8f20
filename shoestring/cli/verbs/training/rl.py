"""`shoestring rl`: reinforcement learning with verifiable rewards: one run, or all stages of a recipe."""

import tomllib
from pathlib import Path
from typing import Annotated, Any

import typer

from shoestring.cli.options import Device, Json, Out, Quiet, Settings
from shoestring.cli.output import print_fields, print_json, print_table, progress
from shoestring.cli.recipes import own_recipe
from shoestring.cli.tasks import Tasks, rl_settings


def rl(
    recipe: Annotated[
        Path | None,
        typer.Argument(help="A recipe (TOML) of one run or of [[stages]], such as those in recipes/."),
    ] = None,
    *,
    tasks: Tasks = [],  # noqa: B006 (typer copies it)
    out: Out = Path("runs/rl"),
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in --out.")] = False,
    until: Annotated[str, typer.Option(help="Stop after this stage; --resume continues with the next.")] = "",
    settings: Settings = [],  # noqa: B006
    device: Device = "auto",
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Train a model on rewards that a program verifies (GRPO).

    Ctrl-C saves the run and exits with 75; --resume continues it. Without a recipe: --set model=MODEL
    --task countdown, or a task of your own (`shoestring task new`).
    """
    from shoestring.device import choose
    from shoestring.errors import ConfigError
    from shoestring.rl.stages import RecipeConfig

    config = load_recipe(recipe, out, resume, rl_settings(tasks) + settings)
    runtime = choose(device)
    if isinstance(config, RecipeConfig):
        from shoestring.rl.pipeline import run_recipe

        report = run_recipe(
            config, runtime, out, resume=resume, until=until, quiet=quiet, say=progress(quiet)
        )
    elif until:
        raise ConfigError("--until names a stage, and this recipe has none")
    else:
        from shoestring.rl.grpo import grpo

        report = grpo(config, runtime, out, resume=resume, quiet=quiet)
        if runtime.rank:  # only the first process prints the report
            return
    if as_json:
        print_json(report)
    elif isinstance(config, RecipeConfig):
        print_stages(report)
        print(f"report: {out / 'report.html'}")
    else:
        print_fields({name: value for name, value in report.items() if not isinstance(value, dict)})
        if config.lora.rank:
            print(f"the adapter is in {out / 'adapter'}, merged into its base in {out / 'model'}")
        print(f"the model is in {out / 'model'}; try: shoestring run {out / 'model'}")


def load_recipe(recipe: Path | None, out: Path, resume: bool, settings: list[str]) -> Any:
    """A GRPOConfig, or a RecipeConfig where the file has stages; on --resume the run's own, with --set."""
    from shoestring import config as configs
    from shoestring.errors import ConfigError
    from shoestring.rl.pipeline import is_same_recipe
    from shoestring.rl.recipe import GRPOConfig
    from shoestring.train.runs.recipe import resumed

    if resume:
        own = load_file(own_recipe(out), [])
        if recipe is not None and not is_same_recipe(own, load_file(recipe, [])):
            raise ConfigError(f"--resume takes the recipe from {out / 'config.toml'}; leave out {recipe}")
        return resumed(type(own), own_recipe(out), settings)
    if recipe is None:
        data = configs.override({}, settings)
        if not {"model", "start"} & data.keys():
            raise ConfigError("rl needs a model to train: --set model=MODEL, a folder or org/name")
        if "tasks" not in data:
            raise ConfigError("rl needs a task: --task countdown, or yours (`shoestring task new FILE.py`)")
        return configs.build(GRPOConfig, data, where="--set")
    return load_file(recipe, settings)


def load_file(recipe: Path, settings: list[str]) -> Any:
    """The recipe in a file: one with stages is a RecipeConfig, any other a GRPOConfig."""
    from shoestring import config as configs
    from shoestring.rl.recipe import GRPOConfig
    from shoestring.rl.stages import RecipeConfig

    try:
        has_stages = "stages" in tomllib.loads(recipe.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        has_stages = False  # loading it says what is wrong
    return configs.load(RecipeConfig if has_stages else GRPOConfig, recipe, settings)


def print_stages(report: dict[str, Any]) -> None:
    """One line for each stage that has a model."""
    shares = ("pass_at_1", "maj_at_8", "greedy", "greedy_capped_share")
    titles = ("stage", "pass@1", "maj@8", "greedy", "looping", "thinking tokens", "seconds")
    rows = [
        (
            row["name"],
            *("-" if row.get(name) is None else f"{row[name]:.1%}" for name in shares),
            f"{row['mean_thinking_tokens']:.0f}",
            f"{row['seconds']:.0f}",
        )
        for row in report["stages"]
        if row.get("pass_at_1") is not None
    ]
    if rows:
        print_table(titles, rows)
