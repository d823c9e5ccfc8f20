"""The end of a run: the final model's folder, the picture of its curves, the receipt and the report."""

import json
import logging
import resource
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import torch

from shoestring.cost.step import Flops
from shoestring.device import Runtime
from shoestring.durable import write_atomic
from shoestring.errors import MissingDependencyError
from shoestring.train.report import curves, receipt
from shoestring.train.report.receipt import Receipt, Segment, describe_machine

log = logging.getLogger(__name__)


class Run(Protocol):
    """A finished run, as far as its receipt needs it."""

    out: Path
    tokens: int
    flops: Flops
    segments: list[Segment]

    @property
    def name(self) -> str: ...
    @property
    def config(self) -> Any:
        """A recipe with `seed` and `price`."""


def write_model_folder(final: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a new folder, then put it in the place of `final`."""
    temporary = final.with_name(f"{final.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    write(temporary)
    shutil.rmtree(final, ignore_errors=True)
    temporary.rename(final)


def draw_curves(run: Run) -> None:
    """Draw curves.png from the run's log; without matplotlib there is a warning instead."""
    try:
        curves.draw(run.out / "metrics.jsonl", run.out / "curves.png", title=run.name)
    except MissingDependencyError as error:
        log.warning("the run has no picture of its curves: %s", error)


def write_report(
    run: Run,
    runtime: Runtime,
    summary: Mapping[str, Any],
    *,
    data: Mapping[str, Any],
    peak: float,
) -> dict[str, Any]:
    """Write receipt.json, and report.json: the summary with time, energy and cost; returns the report.

    `data` is the manifest of the training data, `peak` the measured FLOP/s of all processes together.
    """
    machine = describe_machine(runtime.device.type, peak) | {"peak_memory_bytes": peak_memory(runtime)}
    if runtime.world_size > 1:
        machine |= {"processes": runtime.world_size}
    content = receipt.write(
        Receipt(
            data=data,
            recipe=asdict(run.config),
            seed=run.config.seed,
            tokens=run.tokens,
            flops=run.flops,
            machine=machine,
            price=run.config.price,
            segments=run.segments,
        ),
        run.out / "receipt.json",
    )
    seconds, train_flops = content["seconds"], content["train_flops"]
    about = {name: value for name in ("note", "tags") if (value := getattr(run.config, name))}
    report = dict(summary) | {
        "train_flops": train_flops,
        "seconds": seconds,
        "achieved_peak_share": train_flops / seconds / peak if seconds else None,
        "energy": content["energy"],
        "money": content["money"],
        **about,
    }
    write_atomic(run.out / "report.json", json.dumps(report, indent=2) + "\n")
    return report


def peak_memory(runtime: Runtime) -> int:
    """Largest memory so far, in bytes: of the GPU's tensors, or resident memory of this process."""
    if runtime.device.type == "cuda":
        return torch.cuda.max_memory_allocated(runtime.device)
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def mean_of(rows: Sequence[Mapping[str, Any]], key: str) -> float | None:
    """The mean of a figure over the rows of a log that have it."""
    values = [row[key] for row in rows if row.get(key) is not None]
    return sum(values) / len(values) if values else None
