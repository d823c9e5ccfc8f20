"""`shoestring demo`: from random weights to a model that completes code, in a few minutes."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shoestring.cli.options import Device, Json, Out, Quiet, Seed
from shoestring.cli.output import print_json

if TYPE_CHECKING:
    from shoestring.device import Runtime
    from shoestring.train.recipe import PretrainConfig

PROMPTS = ["def __init__(self, ", "import os\nimport sys\n\ndef main(", "for i in range("]
"""What the finished model completes, for the report."""


def demo(
    *,
    out: Out = Path("runs/demo"),
    seconds: Annotated[float, typer.Option(min=1, help="Training time to aim at on this machine.")] = 230.0,
    seed: Seed = 0,
    device: Device = "auto",
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Pretrain a small DeepSeek-V3-shaped model on Python's standard library, score it, let it complete code.

    A finished demo is shown again, a stopped one goes on; another --out or removing the folder starts anew.
    """
    from shoestring.device import choose

    runtime = choose(device)
    report = _finished(out) or _train_and_report(runtime, out, seconds, seed, quiet)
    if as_json:
        print_json(report)
        return
    _print(report, out)
    if sys.stdin.isatty() and sys.stdout.isatty():
        _converse(runtime, out)


def _finished(out: Path) -> dict[str, Any] | None:
    """The report of a demo that is done, its comparison included."""
    if not (out / "report.json").is_file():
        return None
    report: dict[str, Any] = json.loads((out / "report.json").read_text(encoding="utf-8"))
    if "completions" not in report:
        return None
    print(f"this demo is done; remove {out} to train again", file=sys.stderr)
    return report


def _train_and_report(
    runtime: "Runtime", out: Path, seconds: float, seed: int, quiet: bool
) -> dict[str, Any]:
    from shoestring.cli.pretrain import load_recipe, train

    resume = (out / "config.toml").is_file()
    if resume:
        config = load_recipe(None, out, resume=True, settings=[])
    else:
        config = _fitted(demo_recipe(seed), runtime, seconds)
    report = train(config, runtime, out, resume=resume, quiet=quiet)
    return _write_report(runtime, out, report, config)


def demo_recipe(seed: int) -> "PretrainConfig":
    """The demo's recipe; recipes/demo.toml is the same in a file."""
    from shoestring.data.corpus import DataConfig
    from shoestring.train.optim import OptimConfig
    from shoestring.train.recipe import PretrainConfig
    from shoestring.train.schedule import ScheduleConfig

    return PretrainConfig(
        model="demo",
        total_tokens=2_000_000,
        batch_size=4,
        micro_batch_size=4,
        seed=seed,
        eval_every=250,
        eval_tokens=131_072,
        data=DataConfig(heldout_fraction=0.05),
        optim=OptimConfig(name="muon", lr=5e-3, muon_lr=5e-3),
        schedule=ScheduleConfig(warmup=0.02, constant_until=0.5, bias_speed=0.01),
    )


def _fitted(config: "PretrainConfig", runtime: "Runtime", seconds: float) -> "PretrainConfig":
    """The recipe with the token budget that this machine trains on in `seconds`, at most the recipe's own."""
    from shoestring.train.speed import measure_speed

    tokens = int(measure_speed(config, runtime) * seconds)
    return replace(config, total_tokens=max(min(tokens, config.total_tokens), 20 * config.seq_len))


def _write_report(
    runtime: "Runtime", out: Path, report: dict[str, Any], config: "PretrainConfig"
) -> dict[str, Any]:
    """Add the comparison with compressors and some completions; leave report.json and report.html."""
    from shoestring.cli.evaluate import heldout_report
    from shoestring.cli.run import complete_text
    from shoestring.cli.weights import open_model
    from shoestring.data.dataset import prepare
    from shoestring.durable import write_atomic
    from shoestring.train.report import write_html
    from shoestring.train.run import cache_folder

    llm = open_model(str(out / "model"), None, {}, runtime.device.type)
    dataset = prepare(config.data, llm.get_tokenizer(), cache_folder())
    heldout = heldout_report(llm.engine.model, dataset, config.seq_len, config.eval_tokens)
    settings = {"max_tokens": 64, "temperature": 0.6, "top_p": 0.9, "seed": config.seed}
    completions = [complete_text(llm, prompt, settings) for prompt in PROMPTS]
    whole = {**report, "heldout": heldout, "completions": completions}
    write_atomic(out / "report.json", json.dumps(whole, indent=2) + "\n")
    pictures = [out / "curves.png"] if (out / "curves.png").is_file() else []
    write_html(whole, out / "report.html", pictures)
    return whole


def _print(report: dict[str, Any], out: Path) -> None:
    from shoestring.cli.terminal import printable

    heldout = report["heldout"]
    print(f"trained on {report['tokens']:,} tokens in {report['seconds']:.0f} s from random weights\n")
    print("bits per byte of held-out code (lower is better)")
    for name, value in (
        ("this model", heldout["bits_per_byte"]),
        ("xz -9", heldout["xz -9"]),
        ("gzip -9", heldout["gzip -9"]),
    ):
        print(f"  {name:<12} {value:.3f}  {'#' * round(value * 16)}")
    for answer in report["completions"]:
        print(
            "\n"
            + "\n".join(
                f"  | {line}" for line in printable(answer["prompt"] + answer["completion"]).splitlines()
            )
        )
    print(f"\nreport: {out / 'report.html'}   model: {out / 'model'}")
    print(f"go on:  shoestring run {out / 'model'} --complete 'class Queue:'")


def _converse(runtime: "Runtime", out: Path) -> None:
    from shoestring.cli.chat import Chat, enable_editing
    from shoestring.cli.terminal import Screen
    from shoestring.cli.weights import open_model
    from shoestring.engine.request import SamplingParams

    llm = open_model(str(out / "model"), None, {}, runtime.device.type)
    enable_editing()
    params = SamplingParams(max_tokens=96, temperature=0.4, top_p=0.95)
    Chat(llm, params, Screen(), complete=True).loop()
