"""`shoestring sft`: conversations and a model in, a fine-tuned model with its receipt out."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shoestring.cli.options import Device, Json, Out, Quiet, Settings
from shoestring.cli.output import print_fields, print_json

if TYPE_CHECKING:
    from shoestring.train.sft_recipe import SFTConfig


def sft(
    recipe: Annotated[Path | None, typer.Argument(help="A recipe (TOML) with start and data.")] = None,
    *,
    out: Out = Path("runs/sft"),
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in --out.")] = False,
    settings: Settings = [],  # noqa: B006 (typer copies it)
    device: Device = "auto",
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Fine-tune a model on conversations (jsonl), all of it or by LoRA. Ctrl-C saves; --resume goes on.

    Without a recipe: --set start=MODEL --set 'data=["FILE.jsonl"]'. LoRA: --set lora.rank=16.
    """
    config = load_recipe(recipe, out, resume, settings)
    from shoestring.device import choose
    from shoestring.train import sft as story

    report = story.sft(config, choose(device), out, resume=resume, quiet=quiet)
    if as_json:
        print_json(report)
        return
    print_fields({name: value for name, value in report.items() if not isinstance(value, dict)})
    if config.lora.rank:
        print(f"the adapter is in {out / 'adapter'}, merged into its base in {out / 'model'}")
    print(f"the model is in {out / 'model'}; try: shoestring run {out / 'model'}")


def load_recipe(recipe: Path | None, out: Path, resume: bool, settings: list[str]) -> "SFTConfig":
    """The recipe: on --resume the run's own, which nothing may change; else the file's, or --set alone."""
    from shoestring import config as configs
    from shoestring.errors import ConfigError
    from shoestring.train.sft_recipe import SFTConfig

    if resume:
        own = out / "config.toml"
        if recipe is not None or settings:
            raise ConfigError(f"--resume takes the recipe from {own}; leave out the recipe and --set")
        if not own.is_file():
            raise ConfigError(f"{out} holds no run to resume; leave out --resume")
        return configs.load(SFTConfig, own)
    if recipe is None:
        return configs.build(SFTConfig, configs.override({}, settings), where="--set")
    return configs.load(SFTConfig, recipe, settings)
