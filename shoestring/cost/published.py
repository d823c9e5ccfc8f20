"""Published runs and machines, each figure with its source, read from published.json."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from shoestring.errors import ConfigError

FILE = Path(__file__).with_name("published.json")


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """An accelerator."""

    name: str
    kind: str
    """Its generation, by which classes of utilisation are named."""
    bf16_flops_per_s: float
    memory_bytes: float
    bytes_per_s: float
    watts: float
    per_hour: float
    """Dollars."""
    source: str


@dataclass(frozen=True, kw_only=True)
class PublishedRun:
    """A training run with what was published about it; None or 0 is what was not."""

    name: str
    source: str
    active: float = 0.0
    """Parameters that a token uses."""
    tokens: float = 0.0
    hardware: str = ""
    gpu_hours: float = 0.0
    gpu_hours_per_trillion: float = 0.0
    further: Mapping[str, float] = field(default_factory=dict)
    """GPU-hours of stages after pretraining."""
    group: str = ""
    """Its class of utilisation."""
    cache: tuple[int, int, int] | None = None
    """Layers, key heads and their width; DeepSeek's own models are presets."""
    outlier: str = ""
    """Reason why it is not fitted."""
    excluded: str = ""

    @property
    def pretraining_hours(self) -> float:
        return self.gpu_hours or self.gpu_hours_per_trillion * self.tokens / 1e12

    @property
    def hours(self) -> float:
        """GPU-hours of all its stages."""
        return self.pretraining_hours + sum(self.further.values())

    @property
    def utilisation(self) -> float:
        """Share of the BF16 peak that 6 FLOPs for each active parameter and token are."""
        return self.achieved_flops_per_s / hardware(self.hardware).bf16_flops_per_s

    @property
    def achieved_flops_per_s(self) -> float:
        """FLOPs a second of each GPU, 6 for each active parameter and token."""
        return 6 * self.active * self.tokens / (self.pretraining_hours * 3600)


@cache
def _content() -> Mapping[str, Any]:
    content: Mapping[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
    return content


@cache
def runs() -> dict[str, PublishedRun]:
    """All published runs by name."""
    rows = ({**row, "group": row.get("class", "")} for row in _content()["runs"])
    all_runs = (PublishedRun(**{k: v for k, v in row.items() if k != "class"}) for row in rows)
    return {run.name: run for run in all_runs}


@cache
def machines() -> dict[str, Hardware]:
    """All accelerators by name."""
    return {row["name"]: Hardware(**row) for row in _content()["hardware"]}


def hardware(name: str) -> Hardware:
    """An accelerator; ConfigError with the names that there are."""
    for each in machines().values():
        if each.name.lower() == name.lower():
            return each
    raise ConfigError(f"no hardware {name!r}; choose from {', '.join(machines())}")


def serving() -> Mapping[str, Any]:
    """The published figures of DeepSeek's service."""
    figures: Mapping[str, Any] = _content()["serving"]
    return figures


def cache_bytes(run: PublishedRun, bytes_per_element: int = 2) -> int:
    """Bytes of the cache for each token of a model with grouped queries."""
    assert run.cache is not None
    layers, heads, width = run.cache
    return 2 * layers * heads * width * bytes_per_element
