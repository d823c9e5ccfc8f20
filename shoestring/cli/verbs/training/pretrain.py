"""`shoestring pretrain`: train a model from random weights by a recipe."""

from pathlib import Path
from typing import Annotated

import typer

from shoestring.cli.options import Device, Json, Out, Quiet, Settings
from shoestring.cli.output import print_fields, print_json
from shoestring.cli.recipes import load_recipe


def pretrain(
    recipe: Annotated[Path | None, typer.Argument(help="A recipe (TOML), such as those in recipes/.")] = None,
    *,
    out: Out = Path("runs/pretrain"),
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in --out.")] = False,
    settings: Settings = [],  # noqa: B006 (typer copies it)
    device: Device = "auto",
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Pretrain a model from random weights.

    Ctrl-C saves the run and exits with 75; --resume continues it.
    """
    from shoestring.device import choose
    from shoestring.evals.perplexity import heldout_evaluator
    from shoestring.train import pretrain as training
    from shoestring.train.pretrain_recipe import PretrainConfig

    config = load_recipe(PretrainConfig, recipe, out, resume, settings)
    on_eval = None
    if config.data.heldout_fraction > 0:
        on_eval = heldout_evaluator(seq_len=config.seq_len, max_tokens=config.eval_tokens)
    report = training.pretrain(config, choose(device), out, resume=resume, quiet=quiet, on_eval=on_eval)
    if as_json:
        print_json(report)
    else:
        print_fields({name: value for name, value in report.items() if not isinstance(value, dict)})
        print(f"the model is in {out / 'model'}; try: shoestring run {out / 'model'} 'def main('")
