"""Command-line options that several subcommands share."""

from pathlib import Path
from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Show no progress.")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.", envvar="SHOESTRING_DEVICE")]
Seed = Annotated[int, typer.Option(help="Seed of all random numbers.")]
Out = Annotated[Path, typer.Option(help="Output folder.")]
Model = Annotated[
    str,
    typer.Argument(help="A folder, org/name, org/name@revision, hf://org/name or smollm2; or MODEL+ADAPTER."),
]
Settings = Annotated[
    list[str], typer.Option("--set", help="Set a field of the recipe, such as optim.lr=3e-4; repeatable.")
]
