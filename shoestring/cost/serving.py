"""A plan of serving: devices for a load, what they hold, and what a day of them costs and earns."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from shoestring.cost.published import Hardware, hardware, machines, serving
from shoestring.cost.sampling import SamplingCounts, sampling
from shoestring.cost.step import Pass, forward
from shoestring.model.config import ModelConfig
from shoestring.model.cost import cache_bytes_per_token

MEMORY_SHARE = 0.9
"""Share of a device's memory that weights and cache may fill; the rest is for activations and the driver."""


@dataclass(frozen=True, kw_only=True)
class Load:
    """Requests that a service has to bear."""

    input_per_s: float = 1000.0
    """Tokens of prompts a second, cache hits included."""
    output_per_s: float = 250.0
    hit_share: float = 342 / 608
    """Share of the prompts' tokens that a cache has (DeepSeek's own service: 56.3%)."""
    context: int = 4989
    """Tokens in the cache of a request, on average (DeepSeek's own service)."""
    user_tokens_per_s: float = 21.0
    """Tokens a second that a user gets (DeepSeek's own service: 20 to 22)."""

    @property
    def concurrent(self) -> float:
        """Answers that are written at the same time."""
        return self.output_per_s / self.user_tokens_per_s


@dataclass(frozen=True, kw_only=True)
class ServingShares:
    """Shares of the BF16 peak that reading prompts and writing answers reach."""

    reading: float
    writing: float


def nodes(load: Load) -> dict[str, float]:
    """Nodes by the published rates of DeepSeek's service: of 8 H800, for DeepSeek-V3 and R1."""
    rates = serving()
    reading = load.input_per_s / rates["input_tokens_per_s"]
    writing = load.output_per_s / rates["output_tokens_per_s"]
    return {"reading": reading, "writing": writing, "total": reading + writing}


def published_shares(v3: ModelConfig) -> ServingShares:
    """The shares that DeepSeek's published rates come to for DeepSeek-V3: a fit of one service."""
    rates = serving()
    peak = rates["devices_per_node"] * hardware(rates["hardware"]).bf16_flops_per_s
    context = rates["cache_tokens"]
    misses = 1 - rates["cached_tokens"] / rates["input_tokens"]
    reading = misses * rates["input_tokens_per_s"] * read_flops(v3, context)
    writing = rates["output_tokens_per_s"] * write_flops(v3, context)
    return ServingShares(reading=reading / peak, writing=writing / peak)


def read_flops(config: ModelConfig, context: int) -> float:
    """FLOPs of a token of a prompt, which sees half of the context on average, with whole keys and values."""
    return sum(forward(config, Pass(tokens=1, pairs=context // 2, predictions=(0,))).values())


def write_flops(config: ModelConfig, context: int) -> float:
    """FLOPs of a token of an answer."""
    return sum(sampling(config, SamplingCounts(read=1, pairs=context, draws=1)).values())


def need(
    config: ModelConfig, load: Load, machine: Hardware, shares: ServingShares, *, weight_bytes: float
) -> dict[str, Any]:
    """Devices of one kind for a load: by FLOPs, by memory, and the larger of the two."""
    misses = load.input_per_s * (1 - load.hit_share)
    reading = misses * read_flops(config, load.context) / shares.reading
    writing = load.output_per_s * write_flops(config, load.context) / shares.writing
    by_flops = (reading + writing) / machine.bf16_flops_per_s
    cache = load.concurrent * load.context * cache_bytes_per_token(config)
    by_memory = (weight_bytes + cache) / (MEMORY_SHARE * machine.memory_bytes)
    count = max(1, math.ceil(max(by_flops, by_memory) - 1e-9))
    return {
        "hardware": machine.name,
        "devices": count,
        "by_flops": by_flops,
        "by_memory": by_memory,
        "weight_bytes": weight_bytes,
        "cache_bytes": cache,
        "dollars_per_day": count * machine.per_hour * 24,
    }


def smallest(
    config: ModelConfig, load: Load, shares: ServingShares, *, weight_bytes: float
) -> list[dict[str, Any]]:
    """The needs of a load on each kind of hardware, the cheapest first."""
    needs = [need(config, load, m, shares, weight_bytes=weight_bytes) for m in machines().values()]
    return sorted(needs, key=lambda row: (row["dollars_per_day"], row["devices"]))


def day(revenue: float, num_nodes: float, per_hour: float, devices_per_node: int) -> Mapping[str, float]:
    """Cost of a day of so many nodes, and the margin of what they earn over it."""
    cost = num_nodes * devices_per_node * per_hour * 24
    return {"cost": cost, "revenue": revenue, "margin": revenue / cost - 1}


def income(hits: float, misses: float, output: float, per_million: Mapping[str, float]) -> float:
    """Dollars for tokens at prices per million: of prompts found in the cache and not, and of answers."""
    amounts = {"cached": hits, "input": misses, "output": output}
    return sum(amounts[name] / 1e6 * per_million[name] for name in amounts)
