"""Load a model for a command: its quantization or target memory, `--set`, and a progress bar."""

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from shoestring.device import Runtime
    from shoestring.engine.engine import Engine
    from shoestring.engine.llm import LLM
    from shoestring.engine.settings import EngineSettings
    from shoestring.model.hf.checkpoint import Checkpoint
    from shoestring.model.memory import Quantization
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
NOT_ALONE = ("n", "stop", "include_stop_str_in_output", "logprobs", "detokenize", "skip_special_tokens")
"""Sampling parameters without use for one reply on a terminal."""
CONTEXT = 8192
"""Most tokens of context, unless `--set max_model_len=...` sets more: the cache takes memory."""
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kMGT]?)(i?)B?", re.IGNORECASE)
_EXPONENT = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}


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


def read_weights(text: str | None) -> "Quantization | int | None":
    """A quantization, or a number of bytes; raises ConfigError for anything else."""
    from shoestring.errors import ConfigError

    if text is None or text == "int8" or text == "int4":
        return text  # type: ignore[return-value]
    size = read_size(text)
    if size is None:
        raise ConfigError(
            f"{text!r} is not a quantization; give int8, int4, or a limit of memory such as 12G"
        )
    return size


def read_size(text: str) -> int | None:
    """Bytes of a size such as 12G or 512MiB; None for anything else."""
    size = _SIZE.fullmatch(text.strip())
    if size is None or float(size[1]) <= 0:
        return None
    return int(float(size[1]) * (1024 if size[3] else 1000) ** _EXPONENT[size[2].upper()])


def find_checkpoint(model: str) -> "Checkpoint":
    """The checkpoint of a name; ConfigError for a GGUF file, which must be imported first."""
    from shoestring.errors import ConfigError
    from shoestring.model.hf.checkpoint import Checkpoint
    from shoestring.model.hf.hub import resolve

    if model.endswith(".gguf"):
        raise ConfigError(
            f"{model} is a GGUF file; make a folder of it with `shoestring import {model} FOLDER`"
        )
    return Checkpoint.open(resolve(model))


def default_form(checkpoint: "Checkpoint", device: str) -> str | None:
    """The quantization if none is named: int8 for plain weights on a CPU that has kernels for it."""
    from shoestring.device import choose
    from shoestring.kernels.packed import available

    if checkpoint.quantization is not None or choose(device).device.type != "cpu" or not available():
        return None
    return "int8"


def choose_form(
    checkpoint: "Checkpoint",
    weights: "Quantization | int | None",
    settings: "EngineSettings",
    runtime: "Runtime",
) -> "Quantization | None":
    """The quantization. For a limit of memory one is chosen, and stderr says which and why."""
    if not isinstance(weights, int):
        return weights
    from shoestring.engine.load import choose, required_memory
    from shoestring.engine.measure import measure_reads
    from shoestring.model.memory import read_bytes_per_token

    form = choose(checkpoint, weights, settings, runtime)
    need = required_memory(checkpoint, form, settings, runtime.compute_dtype)
    speed, share = measure_reads(runtime), read_bytes_per_token(checkpoint.model_config, need.weights)
    print(
        f"{weights / 1e9:.1f} GB: weights {form or 'as they are stored'}, which needs {need}; "
        f"memory reads at {speed / 1e9:.1f} GB/s here and a token takes {share / 1e9:.3g} GB, "
        f"so up to {speed / share:,.1f} tokens/s",
        file=sys.stderr,
    )
    return form


@dataclass(frozen=True, kw_only=True)
class LoadPlan:
    """A checkpoint with all that is decided before its weights are read."""

    checkpoint: "Checkpoint"
    quantization: "Quantization | None"
    settings: "EngineSettings"
    runtime: "Runtime"

    @property
    def num_bytes(self) -> int:
        """Memory of weights and cache, as it fits now. Raises ConfigError when it does not."""
        from shoestring.engine.load import fit, required_memory

        settings = fit(self.checkpoint, self.quantization, self.settings, self.runtime)
        dtype = self.runtime.compute_dtype
        need = required_memory(self.checkpoint, self.quantization, settings, dtype)
        return need.weights + need.cache

    def load(self) -> "Engine":
        """Read the weights."""
        from shoestring.engine.load import load_engine

        with progress_bar(f"loading {self.checkpoint.folder.name}") as progress:
            return load_engine(
                self.checkpoint,
                self.runtime,
                quantization=self.quantization,
                settings=self.settings,
                progress=progress,
            )


def plan_model(
    checkpoint: "Checkpoint", weights: str | None, engine: Mapping[str, Any], device: str, *, seqs: int = 1
) -> LoadPlan:
    """Decide how to load a model; `engine` are EngineSettings other than max_num_seqs, which is `seqs`."""
    from shoestring.config import build
    from shoestring.device import choose
    from shoestring.engine.settings import EngineSettings

    form, runtime = read_weights(None if weights == "none" else weights), choose(device)
    longest = checkpoint.config.max_position_embeddings
    values = {"max_model_len": min(CONTEXT, longest), "max_num_seqs": seqs, **engine}
    settings = build(EngineSettings, values, where="--set")
    quantization = choose_form(checkpoint, form, settings, runtime)
    return LoadPlan(checkpoint=checkpoint, quantization=quantization, settings=settings, runtime=runtime)


def open_model(
    checkpoint: "Checkpoint", weights: str | None, engine: Mapping[str, Any], device: str, *, seqs: int = 1
) -> "LLM":
    """Load a model; see plan_model."""
    from shoestring.engine.llm import LLM
    from shoestring.engine.load import default_sampling

    loaded_engine = plan_model(checkpoint, weights, engine, device, seqs=seqs).load()
    return LLM.of(loaded_engine, checkpoint, sampling=default_sampling(checkpoint), seed=None)


@contextmanager
def progress_bar(title: str) -> "Iterator[Progress]":
    """Show bytes on stderr if that is a terminal; yields the function to call with (bytes, all bytes)."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TimeRemainingColumn(),
    )
    progress = Progress(*columns, console=console, disable=not console.is_terminal, transient=True)
    task = progress.add_task(title, total=None)

    def advance(num_bytes: int, total: int) -> None:
        progress.start()  # only now: mapped weights need no bar
        progress.update(task, completed=num_bytes, total=total)
        if num_bytes >= total:  # the caller may show other progress before this block ends
            progress.stop()

    try:
        yield advance
    finally:
        progress.stop()
