"""A plan: what training and serving a model will take, every figure with its assumption."""

import math
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from shoestring.cost import layout as layouts
from shoestring.cost.footprint import Intensities
from shoestring.cost.layout import Layout
from shoestring.cost.published import Hardware, PublishedRun, cache_bytes, hardware, runs
from shoestring.cost.serving import Load, nodes, published_shares, smallest
from shoestring.cost.training import prediction, published
from shoestring.cost.utilisation import class_names, class_of, utilisation_class
from shoestring.errors import ConfigError
from shoestring.model.config import ModelConfig
from shoestring.model.cost import cache_bytes_per_token, parameters, train_flops_per_token
from shoestring.model.memory import weight_bytes
from shoestring.model.presets import PRESETS

SUFFIXES = {"k": 1e3, "m": 1e6, "b": 1e9, "t": 1e12}
CACHE_ASSUMPTION = "2 bytes an element"


@dataclass(frozen=True, kw_only=True)
class PlanConfig:
    """The questions of a plan."""

    tokens: float = 0.0
    """Tokens to train on; 0: as many as the published run of this name."""
    hardware: str = "H800"
    devices: int = 2048
    per_hour: float | None = None
    """Dollars for an hour of a device; None: the list's."""
    utilisation: str = ""
    """A class of published runs; empty: that of the hardware and the model."""
    seq_len: int = 4096
    gradient_checkpointing: bool = True
    layout: Layout = field(default_factory=Layout)
    """All 1: the smallest that holds the model."""
    load: Load = field(default_factory=Load)
    world: Intensities = field(default_factory=Intensities)

    def __post_init__(self) -> None:
        hardware(self.hardware)
        if self.utilisation and self.utilisation not in class_names():
            raise ConfigError(
                f"utilisation = {self.utilisation!r} is no class; choose from {', '.join(class_names())}"
            )
        numbers: list[tuple[str, float, float]] = [
            ("tokens", self.tokens, 0),
            ("devices", self.devices, 1),
            ("seq_len", self.seq_len, 1),
        ]
        numbers += [("per_hour", self.per_hour or 0.0, 0)]
        numbers += [(f"load.{n}", getattr(self.load, n), 0) for n in ("input_per_s", "output_per_s")]
        numbers += [("load.context", self.load.context, 1), ("load.hit_share", self.load.hit_share, 0)]
        numbers += [("load.user_tokens_per_s", self.load.user_tokens_per_s, 1e-9)]
        names = ("pue", "co2_kg_per_kwh", "site_water_l_per_kwh", "source_water_l_per_kwh")
        numbers += [(f"world.{name}", getattr(self.world, name), 0) for name in names]
        if self.load.hit_share > 1:
            raise ConfigError(f"load.hit_share = {self.load.hit_share:g} is a share of at most 1")
        for name, value, least in numbers:
            if not (math.isfinite(value) and value >= least):
                raise ConfigError(f"{name} = {value:g} is not a number of at least {least:g}")

    @property
    def machine(self) -> Hardware:
        """The hardware, at its price here."""
        machine = hardware(self.hardware)
        return machine if self.per_hour is None else replace(machine, per_hour=self.per_hour)


def number(text: str) -> float:
    """A number with a suffix: 14.8T, 2B, 500M, 20k; ConfigError for anything else."""
    plain = text.strip().lower().replace("_", "").replace(",", "")
    scale = SUFFIXES.get(plain[-1:], 1.0)
    try:
        value = float(plain[:-1] if plain[-1:] in SUFFIXES else plain) * scale
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or value < 0:
        raise ConfigError(f"{text!r} is not a number of tokens, such as 14.8T, 2B or 500M")
    return value


def plan(name: str, shape: ModelConfig | None, config: PlanConfig) -> dict[str, Any]:
    """The plan of a model: its shape, a published run of its name, or both."""
    run, machine = runs().get(name), config.machine
    if shape is None and run is None:
        raise ConfigError(
            f"{name!r} is no model and no published run; choose from {', '.join([*PRESETS, *runs()])}, or "
            "give a folder with a config.json, org/name, or a recipe"
        )
    content: dict[str, Any] = {"model": name}
    if run is not None and run.hours:
        content["published"] = published(run, _machine_of(run, config), _price_of(run, config), config.world)
    tokens = config.tokens or (run.tokens if run else 0.0)
    active, has_experts = _active(shape, run), _has_experts(shape, run)
    if tokens and active:
        group = (
            utilisation_class(config.utilisation)
            if config.utilisation
            else class_of(machine.kind, has_experts=has_experts)
        )
        flops = 6 * active * tokens
        content["training"] = {"tokens": tokens, "active_parameters": active} | prediction(
            flops,
            group,
            machine,
            devices=config.devices,
            per_hour=machine.per_hour,
            world=config.world,
        )
        content["training"]["assumptions"]["flops"] = "6 for each active parameter and token"
        if has_experts and "MoE" not in group.name and not config.utilisation:
            content["training"]["assumptions"]["utilisation"] += "; none of them has experts"
    if shape is not None:
        content |= _of_shape(shape, config, machine)
    elif run is not None and run.cache:
        content["cache_bytes_per_token"] = cache_bytes(run)
    return content


def _of_shape(shape: ModelConfig, config: PlanConfig, machine: Hardware) -> dict[str, Any]:
    """Figures that need the model's shape."""
    count = parameters(shape)
    weights = weight_bytes(shape, bytes_per_weight=2)
    is_v3 = shape == PRESETS["deepseek-v3"]
    shares = published_shares(PRESETS["deepseek-v3"])
    serving: dict[str, Any] = {
        "load": asdict(config.load),
        "machines": smallest(shape, config.load, shares, weight_bytes=weights / 2 if is_v3 else weights),
        "assumptions": {
            "weights": "FP8, a byte each, as DeepSeek serves them" if is_v3 else "bfloat16",
            "cache": CACHE_ASSUMPTION,
            "utilisation": f"{shares.reading:.1%} of the BF16 peak reading prompts and {shares.writing:.1%} "
            "writing, a fit of DeepSeek's service alone (open-infra-index, day 6)",
            "hits": f"{config.load.hit_share:.1%} of the prompts' tokens are in the cache and not computed",
            "memory": "nine tenths of each device",
        },
    }
    if is_v3:
        serving["published_nodes"] = nodes(config.load)
    return {
        "parameters": {"total": count.total, "active": count.active, "mtp": count.mtp},
        "train_flops_per_token": train_flops_per_token(shape, config.seq_len),
        "cache_bytes_per_token": cache_bytes_per_token(shape),
        "memory": _memory(shape, config, machine),
        "serving": serving,
    }


def _memory(shape: ModelConfig, config: PlanConfig, machine: Hardware) -> dict[str, Any]:
    """Memory of each device in the asked or the smallest layout."""
    options = {"seq_len": config.seq_len, "gradient_checkpointing": config.gradient_checkpointing}
    smallest_one = layouts.smallest_layout(shape, machine, **options)  # type: ignore[arg-type]
    is_asked = config.layout != Layout()
    if smallest_one is None and not is_asked:
        reason = f"no layout of up to {layouts.MOST_DEVICES} {machine.name} holds it"
        return {"smallest": None, "reason": reason}
    layout = config.layout if is_asked or smallest_one is None else smallest_one["layout"]
    rows = layouts.largest_micro_batch(shape, layout, machine, **options)  # type: ignore[arg-type]
    checkpointing = config.gradient_checkpointing
    parts = layouts.device_memory(
        shape, layout, seq_len=config.seq_len, micro_batch=max(rows, 1), gradient_checkpointing=checkpointing
    )
    return {
        "layout": asdict(layout),
        "devices": layout.devices,
        "bytes": parts,
        "largest_micro_batch": rows,
        "fits": rows > 0,
        "smallest_devices": smallest_one["devices"] if smallest_one else None,
        "assumptions": {
            "state": f"{layouts.STATE_BYTES} bytes a parameter (arXiv 1910.02054)",
            "rows": f"{config.seq_len:,} tokens each, "
            + ("each layer's input kept" if checkpointing else "all activations kept"),
            "driver": f"{layouts.DRIVER_BYTES / 1e9:g} GB, assumed",
        },
    }


def compare(names: list[str], config: PlanConfig) -> list[dict[str, Any]]:
    """Published runs side by side, with the ratio of hours and dollars to the last of them."""
    rows = []
    for name in names:
        run = runs().get(name)
        if run is None or not run.hours:
            names_with_hours = [run.name for run in runs().values() if run.hours]
            raise ConfigError(f"{name!r} has no published hours; choose from {', '.join(names_with_hours)}")
        row = published(run, _machine_of(run, config), _price_of(run, config), config.world)
        rows.append({"run": name, "tokens": run.tokens, "active_parameters": run.active, **row})
    last = rows[-1]
    for row in rows:
        row["hours_ratio"] = row["gpu_hours"] / last["gpu_hours"]
        row["dollars_ratio"] = row["dollars"] / last["dollars"]
        row["assumptions"] = {"price": f"${row['dollars'] / row['gpu_hours']:g} for an hour of a device"}
    return rows


def _machine_of(run: PublishedRun, config: PlanConfig) -> Hardware:
    return hardware(run.hardware or config.hardware)


def _price_of(run: PublishedRun, config: PlanConfig) -> float:
    return _machine_of(run, config).per_hour if config.per_hour is None else config.per_hour


def _active(shape: ModelConfig | None, run: PublishedRun | None) -> float:
    """Parameters that a token uses: as published, by which the classes are fitted, or the exact number."""
    if run is not None and run.active:
        return run.active
    return float(parameters(shape).active) if shape is not None else 0.0


def _has_experts(shape: ModelConfig | None, run: PublishedRun | None) -> bool:
    if shape is not None:
        return shape.moe is not None
    return run is not None and ("MoE" in run.group or run.group == "V3 in FP8")
