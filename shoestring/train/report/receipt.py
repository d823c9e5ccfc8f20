"""receipt.json: data, recipe, machine, time, energy and cost of a run, for others to check.

No host name, user name or absolute path is written: a receipt is made to be shared.
"""

import hashlib
import json
import math
import os
import platform
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import shoestring
from shoestring.config import changes
from shoestring.cost.footprint import JOULES_PER_KWH, Intensities, footprint
from shoestring.data.folder import sha256_of
from shoestring.durable import write_atomic
from shoestring.errors import ConfigError
from shoestring.train.report.energy import Energy, combine

UNAVAILABLE = "unavailable"
OUTPUTS = ("model", "adapter")
"""Folders that a run leaves."""
MODEL_FILES = (
    *("config.json", "adapter_config.json", "generation_config.json"),
    *("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"),
)
"""Files beside the weights that decide what a model does."""
_PACKAGE = Path(shoestring.__file__).parent


@dataclass(frozen=True, kw_only=True)
class Segment:
    """One uninterrupted part of a run; `asdict` of it is JSON, and `Segment.of` reads that back."""

    start: str
    """UTC, ISO 8601."""
    end: str
    seconds: float
    """By the monotonic clock, which no clock change disturbs."""
    energy: Energy
    step: int = 0
    """Steps of the run at its end."""
    recipe: Mapping[str, Any] = field(default_factory=dict)
    """The settings it ran with, as JSON; empty in runs of older versions."""

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> "Segment":
        return cls(**{**data, "energy": Energy(**data["energy"])})


@dataclass(frozen=True, kw_only=True)
class Price:
    """Prices of the machine and of electricity; None is unknown, and then no cost is stated."""

    per_hour: float | None = None
    per_kwh: float | None = None
    currency: str = "USD"
    source: str = ""
    """Source of the price, such as a price list and its date."""

    def __post_init__(self) -> None:
        for name, value in (("per_hour", self.per_hour), ("per_kwh", self.per_kwh)):
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise ConfigError(f"price.{name} = {value}: a price is a number of at least 0, or left out")
        if not self.source and (self.per_hour is not None or self.per_kwh is not None):
            raise ConfigError("price.source is empty: say where the price is from")


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """Contents of receipt.json."""

    data: Mapping[str, Any]
    """The data manifest: paths, sha256, totals, licenses."""
    recipe: Mapping[str, Any]
    seed: int
    tokens: int
    flops: Mapping[str, float]
    """Of all matrix products, by part (cost/step.py): counted step by step, not measured."""
    machine: Mapping[str, Any]
    """From `describe_machine`."""
    price: Price
    segments: Sequence[Segment]
    """In order; at least one."""


def write(receipt: Receipt, path: Path) -> dict[str, Any]:
    """Write the receipt to `path` in one rename and return what was written. Raises StorageError."""
    seconds = sum(segment.seconds for segment in receipt.segments)
    energy = total_energy(receipt.segments)
    content = _without_paths(
        {
            "code": code_version(),
            "data": dict(receipt.data),
            "recipe": dict(receipt.recipe),
            "seed": receipt.seed,
            "tokens": receipt.tokens,
            "train_flops": sum(receipt.flops.values()),
            "flops": dict(receipt.flops),
            "start": receipt.segments[0].start,
            "end": receipt.segments[-1].end,
            "seconds": seconds,
            "segments": len(receipt.segments),
            "history": history(receipt.segments),
            "machine": dict(receipt.machine),
            "energy": {**asdict(energy), "joules": _or_unavailable(energy.joules)},
            "footprint": UNAVAILABLE if energy.joules is None else footprint(energy.joules, Intensities()),
            "money": money(receipt.price, seconds, energy),
        }
    )
    content["outputs"] = output_hashes(path.parent)
    content = json.loads(json.dumps(content, allow_nan=False))
    content["sha256"] = digest(content)
    write_atomic(path, json.dumps(content, indent=2, allow_nan=False) + "\n")
    return content


def digest(content: Mapping[str, Any]) -> str:
    """SHA-256 of all that a receipt says, but for this digest: it finds a figure that was changed later."""
    rest = {name: value for name, value in content.items() if name != "sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def output_hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of the files that a run leaves: its model, its adapter and its log."""
    files = [folder / "metrics.jsonl", *(folder / part / name for part in OUTPUTS for name in MODEL_FILES)]
    files += [file for part in OUTPUTS for file in sorted((folder / part).glob("*.safetensors"))]
    return {file.relative_to(folder).as_posix(): sha256_of(file) for file in files if file.is_file()}


def history(segments: Sequence[Segment]) -> list[dict[str, Any]]:
    """Each segment's time, the steps of the run at its end, and the settings that it changed: (old, new)."""
    rows, before = list[dict[str, Any]](), segments[0].recipe
    for segment in segments:
        differences = changes(before, segment.recipe) if before and segment.recipe else {}
        before = segment.recipe or before
        times = {"start": segment.start, "end": segment.end, "seconds": segment.seconds}
        rows.append(times | {"step": segment.step, "changes": differences})
    return rows


def utc_now() -> str:
    """The time now as UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def total_energy(segments: Sequence[Segment]) -> Energy:
    """The energy of the whole run; unavailable if that of any segment is."""
    total = segments[0].energy
    for segment in segments[1:]:
        total = combine(total, segment.energy)
    return total


def money(price: Price, seconds: float, energy: Energy) -> dict[str, Any]:
    """Rent of the machine and cost of the electricity, separate: a rent includes the electricity."""
    kwh = None if energy.joules is None else energy.joules / JOULES_PER_KWH
    rent = None if price.per_hour is None else price.per_hour * seconds / 3600
    electricity = None if price.per_kwh is None or kwh is None else price.per_kwh * kwh
    return {
        "currency": price.currency,
        "machine_rent": _or_unavailable(rent),
        "electricity": _or_unavailable(electricity),
        "price_per_hour": _or_unavailable(price.per_hour),
        "price_per_kwh": _or_unavailable(price.per_kwh),
        "price_source": price.source or UNAVAILABLE,
    }


def code_version() -> dict[str, Any]:
    """The package's version, the sha256 of its sources, and the git commit if it runs from a checkout."""
    digest = hashlib.sha256()
    for path in sorted(_PACKAGE.rglob("*.py"), key=lambda path: path.relative_to(_PACKAGE).as_posix()):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(_PACKAGE).as_posix()}\0{len(content)}\0".encode() + content)
    # Only a checkout that tracks this very file: an installed copy may lie inside somebody else's repository.
    is_checkout = _git("ls-files", "--error-unmatch", "__init__.py") is not None
    status = _git("status", "--porcelain", "--", ".") if is_checkout else None
    return {
        "version": shoestring.__version__,
        "sha256": digest.hexdigest(),
        "git_commit": _or_unavailable(_git("rev-parse", "HEAD") if is_checkout else None),
        "git_is_dirty": _or_unavailable(None if status is None else bool(status)),
    }


def describe_machine(device: str = "cpu", peak_flops_per_s: float | None = None) -> dict[str, Any]:
    """Processor, memory, GPUs in use and torch; `peak_flops_per_s` is what a matrix product here reached."""
    import torch

    gpus = []
    if device.startswith("cuda"):
        properties = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
        gpus = [{"name": gpu.name, "memory_bytes": gpu.total_memory} for gpu in properties]
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "gpus": gpus,
        "device": device,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "measured_peak_flops_per_s": _or_unavailable(peak_flops_per_s),
    }


def _cpu_name() -> str:
    try:
        match = re.search(r"^model name\s*: *(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except (OSError, UnicodeDecodeError):
        match = None
    if match:
        return match[1].strip()
    return _run("sysctl", "-n", "machdep.cpu.brand_string") or platform.processor() or UNAVAILABLE


def _git(*arguments: str) -> str | None:
    return _run("git", "-C", str(_PACKAGE), *arguments)


def _run(*command: str) -> str | None:
    """Output of a command; None if there is no such command or it fails."""
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return None
    return result.stdout.strip()


def _or_unavailable(value: Any) -> Any:
    return UNAVAILABLE if value is None else value


def _without_paths(value: Any) -> Any:
    """`value` as JSON, with absolute paths cut to their last part and the home folder to `~`."""
    if isinstance(value, Mapping):
        return {str(_without_paths(key)): _without_paths(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_paths(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if not isinstance(value, str):
        return value
    text = value.removeprefix("file://")
    for kind in (PurePosixPath, PureWindowsPath):
        if "\n" not in text and kind(text).is_absolute():
            return kind(text).name
    home = str(Path.home())
    return text.replace(home, "~") if len(home) > 1 else text
