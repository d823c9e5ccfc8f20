"""Load a model for a command: its quantization or target memory, `--set`, and a progress bar."""

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shoestring.engine.offline.plan import plan_model

if TYPE_CHECKING:
    from shoestring.engine.llm import LLM
    from shoestring.model.hf.checkpoint import Checkpoint
    from shoestring.model.packed.quantize import Progress

Weights = Annotated[
    str | None,
    typer.Option(
        "--quantization",
        "--quant",
        "--target-ram",
        metavar="FORM|SIZE",
        help="int8, int4 or none; or a limit of memory, such as 12G: the most exact weights that fit.",
    ),
]
Sampling = Annotated[
    list[str],
    typer.Option(
        "--set", help="A setting of sampling or the engine, such as temperature=0.6 or seed=1; repeatable."
    ),
]
BAR_AFTER_S = 1.0
NOT_ALONE = ("n", "stop", "include_stop_str_in_output", "logprobs", "detokenize", "skip_special_tokens")
"""Sampling parameters without use for one reply on a terminal."""


@dataclass(frozen=True, kw_only=True)
class Choices:
    """The settings of `--set`, by the part that they concern."""

    sampling: Mapping[str, Any] = field(default_factory=dict)
    engine: Mapping[str, Any] = field(default_factory=dict)
    thinking: bool | None = None


def read_choices(settings: Sequence[str], where: str = "--set") -> Choices:
    """Sort settings by their part; an unknown name raises ConfigError. Values are checked later."""
    from shoestring.config import override
    from shoestring.engine.request import SamplingParams
    from shoestring.engine.settings import EngineSettings
    from shoestring.errors import ConfigError

    sampling = {f.name for f in fields(SamplingParams)} - {*NOT_ALONE, "output_kind"}
    engine = {f.name for f in fields(EngineSettings)} - {"max_num_seqs"}
    data = override({}, settings)
    for name in data:
        if name not in {*sampling, *engine, "thinking"}:
            raise ConfigError(
                f"{where}: no {name!r}; there are {', '.join(sorted({*sampling, *engine, 'thinking'}))}"
            )
    thinking = data.get("thinking")
    if thinking not in (None, True, False):
        raise ConfigError(f"{where}: thinking = {thinking!r} must be true or false")
    return Choices(
        sampling={name: value for name, value in data.items() if name in sampling},
        engine={name: value for name, value in data.items() if name in engine},
        thinking=thinking,
    )


def open_model(
    checkpoint: "Checkpoint", weights: str | None, engine: Mapping[str, Any], device: str, *, seqs: int = 1
) -> "LLM":
    """Load a model; see plan_model."""
    from shoestring.engine.llm import LLM
    from shoestring.engine.load import default_sampling

    plan = plan_model(checkpoint, weights, engine, device, seqs=seqs, say=print_to_stderr)
    with progress_bar(f"loading {checkpoint.folder.name}") as progress:
        loaded_engine = plan.load(progress)
    return LLM.of(loaded_engine, checkpoint, sampling=default_sampling(checkpoint), seed=None)


def print_to_stderr(text: str) -> None:
    """Print a line on stderr."""
    print(text, file=sys.stderr)


@contextmanager
def progress_bar(title: str) -> "Iterator[Progress]":
    """Show bytes on stderr if that is a terminal; yields the function to call with (bytes, all bytes).

    What is read at once, such as `mini`, gets no bar: importing it would take longer.
    """
    begin, bars = time.monotonic(), ExitStack()
    advance: Progress | None = None

    def report(num_bytes: int, total: int) -> None:
        nonlocal advance
        if advance is None and time.monotonic() - begin >= BAR_AFTER_S and num_bytes < total:
            advance = bars.enter_context(_bar(title))
        if advance is not None:
            advance(num_bytes, total)
        if num_bytes >= total:  # the caller may show other progress before this block ends
            bars.close()
            advance = None

    with bars:
        yield report


@contextmanager
def _bar(title: str) -> "Iterator[Progress]":
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    description = TextColumn("{task.description}", markup=False)
    columns = (description, BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        task = progress.add_task(title, total=None)
        yield lambda num_bytes, total: progress.update(task, completed=num_bytes, total=total)
