"""Options that several verbs share, spelled once."""

from pathlib import Path
from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress display.")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.", envvar="SHOESTRING_DEVICE")]
Seed = Annotated[int, typer.Option(help="Seed of everything random.")]
Out = Annotated[Path, typer.Option(help="Folder to write to.")]
Model = Annotated[str, typer.Argument(help="A folder, org/name, org/name@revision or hf://org/name.")]
Settings = Annotated[
    list[str], typer.Option("--set", help="Change a recipe's field, such as optim.lr=3e-4; repeatable.")
]
