"""`shoestring reward-model`: train a reward model on pairs of answers, fully or with LoRA."""

from pathlib import Path
from typing import Annotated

import typer

from shoestring.cli.options import Device, Json, Out, Quiet, Settings
from shoestring.cli.output import print_fields, print_json
from shoestring.cli.recipes import load_recipe


def reward_model(
    recipe: Annotated[Path | None, typer.Argument(help="A recipe (TOML) with model and data.")] = None,
    *,
    out: Out = Path("runs/reward-model"),
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in --out.")] = False,
    settings: Settings = [],  # noqa: B006 (typer copies it)
    device: Device = "auto",
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Train a reward model on pairs of answers: it scores the better one higher.

    Ctrl-C saves the run and exits with 75; --resume continues it. Without a recipe: --set model=MODEL
    --set 'data=["PAIRS.jsonl"]', and for LoRA --set lora.rank=16.
    """
    from shoestring.device import choose
    from shoestring.preferences import reward_model as training
    from shoestring.preferences.recipe import RewardModelConfig

    config = load_recipe(RewardModelConfig, recipe, out, resume, settings)
    report = training.train_reward_model(config, choose(device), out, resume=resume, quiet=quiet)
    if as_json:
        print_json(report)
        return
    print_fields({name: value for name, value in report.items() if not isinstance(value, dict)})
    print(f"the reward model is in {out / 'model'}; eval --set reward_model={out / 'model'} scores with it")
