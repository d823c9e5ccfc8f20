"""`shoestring sft`: fine-tune a model on conversations, fully or with LoRA."""

from pathlib import Path
from typing import Annotated

import typer

from shoestring.cli.options import Device, Json, Out, Quiet, Settings
from shoestring.cli.output import print_fields, print_json
from shoestring.cli.recipes import load_recipe


def sft(
    recipe: Annotated[Path | None, typer.Argument(help="A recipe (TOML) with model and data.")] = None,
    *,
    out: Out = Path("runs/sft"),
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in --out.")] = False,
    settings: Settings = [],  # noqa: B006 (typer copies it)
    device: Device = "auto",
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Fine-tune a model on conversations of any form, fully or with LoRA.

    `shoestring data show FILE --model MODEL` shows before what would be learned.
    Ctrl-C saves the run and exits with 75; --resume continues it. Without a recipe: --set model=MODEL
    --set 'data=["FILE.jsonl"]', and for LoRA --set lora.rank=16.
    """
    from shoestring.device import choose
    from shoestring.train import sft as training
    from shoestring.train.sft_recipe import SFTConfig

    config = load_recipe(SFTConfig, recipe, out, resume, settings)
    report = training.sft(config, choose(device), out, resume=resume, quiet=quiet)
    if as_json:
        print_json(report)
        return
    print_fields({name: value for name, value in report.items() if not isinstance(value, dict)})
    if config.lora.rank:
        print(f"the adapter is in {out / 'adapter'}, merged into its base in {out / 'model'}")
    print(f"the model is in {out / 'model'}; try: shoestring run {out / 'model'}")
