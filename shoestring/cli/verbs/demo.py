"""`shoestring demo`: R1-Zero from random weights in minutes, on a page where its models answer."""

import gc
import json
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import shoestring
from shoestring.cli.options import Device, Json, Out, Quiet, Seed
from shoestring.cli.output import print_json, progress

if TYPE_CHECKING:
    import socket

    from shoestring.rl.stages import RecipeConfig
    from shoestring.serve.app import Work

RECIPE = "r1-mini.toml"
LAST = "student"
"""The last stage of the demo; `shoestring rl --resume` continues with the others."""
HOST = "127.0.0.1"
NUM_PORTS = 20
"""Ports that are tried, from the wanted one on."""


def demo(
    *,
    out: Out = Path("runs/demo"),
    seed: Seed = 0,
    train_only: Annotated[
        bool, typer.Option("--train-only", help="Train, report and exit, as without a terminal.")
    ] = False,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port of the page, or the next free one.")
    ] = 8000,
    device: Device = "auto",
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Open a page to chat with, and train R1-Zero from random weights beside it, in minutes.

    The model learns to think because right answers are rewarded; each stage's model is on the page as soon as
    it is trained. Ctrl-C ends both; the same command goes on. A finished demo serves its models at once. To
    start again, give another --out or remove the folder. Without a terminal it trains, reports and exits.
    """
    if train_only or as_json or not (sys.stdin.isatty() and sys.stdout.isatty()):
        train(out, seed, device, quiet=quiet, as_json=as_json)
    else:
        serve(out, seed, device, port=port, quiet=quiet)


def train(out: Path, seed: int, device: str, *, quiet: bool, as_json: bool) -> None:
    """Train, or go on with it, and print the scores of the models."""
    from shoestring.cli.verbs.training.rl import print_stages
    from shoestring.device import choose
    from shoestring.rl.pipeline import run_recipe

    report = _finished(out)
    if report is None:
        runtime, resume, say = choose(device), (out / "config.toml").is_file(), progress(quiet)
        report = run_recipe(demo_recipe(seed), runtime, out, resume=resume, until=LAST, quiet=quiet, say=say)
    if as_json:
        print_json(report)
        return
    print_stages(report)
    print(f"\nreport: {out / 'report.html'}   models on a page: shoestring demo --out {out}")
    print(f"the rest of R1's recipe: shoestring rl --resume --out {out}")


def serve(out: Path, seed: int, device: str, *, port: int, quiet: bool) -> None:
    """Serve mini and the demo's models, with the training beside them, until Ctrl-C."""
    gc.disable()  # until the service runs: what is imported stays, and looking through it took 0.7 s
    from shoestring.cli.live_demo import LiveDemo, LiveLine, is_finished, open_browser
    from shoestring.cli.verbs.serve import open_local, open_service
    from shoestring.serve.app import build_app
    from shoestring.serve.chats.open import open_chats
    from shoestring.serve.config import ServiceConfig
    from shoestring.serve.models.opening import ModelSettings
    from shoestring.serve.server import serve_app
    from shoestring.serve.training.runs import Runs
    from shoestring.serve.training.stages import stages_of

    out = out.absolute()
    with listen_near(port) as listener:
        config = ServiceConfig(runs=str(out.parent))
        local_models = open_local(["mini"], ModelSettings(device=device), config)
        service = open_service(config, local_models.memory.backends, None)
        runs = Runs(local_models.runs, local_models.memory)
        live = LiveDemo(service, local_models, runs, out.name, LiveLine(quiet=quiet))
        url = f"http://{HOST}:{listener.getsockname()[1]}"
        print(f"chat with mini: {url}")
        if not is_finished(stages_of(out)):
            print(f"watch the training: {url}/#/training")
            print("the training goes first: until it ends, answers take one core, at a low priority")
        print("Ctrl-C ends both", flush=True)
        arguments = ["demo", "--train-only", "--out", str(out), "--seed", str(seed), "--device", device]
        beside: list[Work] = [partial(open_browser, url), partial(live.train, arguments), live.fetch]
        chats = open_chats(config, None)
        app = build_app(service, None, chats, local_models=local_models, runs=runs, beside=beside)
        serve_app(app, service, listener)
    if is_finished(stages_of(out)):
        print("\nthe models are kept; `make demo` serves them again")
    else:
        print("\nthe training is saved; `make demo` goes on with it")


def listen_near(port: int) -> "socket.socket":
    """A listening socket on a port or one of the next; says so when it is another one.

    Raises ConfigError when all are in use.
    """
    from shoestring.errors import ConfigError
    from shoestring.serve.server import listen

    for other in range(port, min(port + NUM_PORTS, 65536)):
        try:
            listener = listen(HOST, other)
        except ConfigError:
            continue
        if other != port:
            print(f"port {port} is in use")
        return listener
    return listen(HOST, 0)


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
