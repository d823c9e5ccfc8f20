"""`shoestring demo`: R1-Zero from random weights in minutes, and a chat with the model."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import shoestring
from shoestring.cli.options import Device, Json, Out, Quiet, Seed
from shoestring.cli.output import print_json, progress

if TYPE_CHECKING:
    from shoestring.rl.stages import RecipeConfig

RECIPE = "r1-mini.toml"
LAST = "student"
"""The last stage of the demo; `shoestring rl --resume` continues with the others."""
CHAT = "zero"
"""The stage whose model the demo chats with."""


def demo(
    *,
    out: Out = Path("runs/demo"),
    seed: Seed = 0,
    device: Device = "auto",
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Train R1-Zero from random weights in minutes, then chat.

    The model learns to think because right answers are rewarded. A finished demo shows its report again, a
    stopped one continues. To start again, give another --out or remove the folder.
    """
    from shoestring.cli.verbs.rl import print_stages
    from shoestring.device import choose
    from shoestring.rl.pipeline import run_recipe

    runtime = choose(device)
    report = _finished(out)
    if report is None:
        resume, say = (out / "config.toml").is_file(), progress(quiet)
        report = run_recipe(demo_recipe(seed), runtime, out, resume=resume, until=LAST, quiet=quiet, say=say)
    if as_json:
        print_json(report)
        return
    print_stages(report)
    print(f"\nreport: {out / 'report.html'}   model: {out / CHAT / 'model'}")
    print(f"the rest of R1's recipe: shoestring rl --resume --out {out}")
    if sys.stdin.isatty() and sys.stdout.isatty():
        _converse(out / CHAT / "model", device)


def demo_recipe(seed: int) -> "RecipeConfig":
    """The recipe recipes/r1-mini.toml with this seed for every stage."""
    from shoestring import config as configs
    from shoestring.rl.stages import RecipeConfig

    return configs.load(RecipeConfig, recipe_file(RECIPE), [f"seed={seed}"])


def recipe_file(name: str) -> Path:
    """The path of a recipe in this repository, or in the installed package."""
    package = Path(shoestring.__file__).parent
    beside = package / "recipes" / name
    return beside if beside.is_file() else package.parent / "recipes" / name


def _finished(out: Path) -> dict[str, Any] | None:
    """The report of a demo that has finished its last stage, else None."""
    if not (out / "report.json").is_file():
        return None
    report: dict[str, Any] = json.loads((out / "report.json").read_text(encoding="utf-8"))
    if LAST not in [row.get("name") for row in report.get("stages", [])]:
        return None
    print(f"this demo is finished; remove {out} to train again", file=sys.stderr)
    return report


def _converse(model: Path, device: str) -> None:
    from shoestring.cli.chat import Chat, enable_editing
    from shoestring.cli.terminal import Screen
    from shoestring.cli.verbs.run import sampling
    from shoestring.cli.weights import find_checkpoint, open_model

    llm = open_model(find_checkpoint(str(model)), None, {}, device)
    enable_editing()
    screen = Screen()
    screen.note("it makes numbers, such as: make 24 from 3,8,1")
    params = sampling(llm, {"temperature": 0.6, "max_tokens": 400}, complete=False)
    Chat(llm, params, screen, thinking=True, has_history=False).loop()
