"""`shoestring plan`: what training and serving a model will take, and what published runs took."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shoestring.cli.options import Json, Settings
from shoestring.cli.output import amount, print_fields, print_json, print_table

if TYPE_CHECKING:
    from shoestring.cost.plan import PlanConfig
    from shoestring.model.config import ModelConfig


def plan(
    targets: Annotated[
        list[str],
        typer.Argument(help="A preset, a published run, a model's folder, org/name, or a recipe (TOML)."),
    ],
    *,
    tokens: Annotated[str, typer.Option(help="Tokens to train on, such as 14.8T.")] = "",
    hardware: Annotated[str, typer.Option(help="A100, H100, H800, H200; that of the run, or H800.")] = "",
    devices: Annotated[int, typer.Option(help="Devices that train at the same time.")] = 2048,
    price: Annotated[float | None, typer.Option(help="Dollars for an hour of a device.")] = None,
    compare: Annotated[
        bool, typer.Option("--compare", help="Compare published runs, with the last.")
    ] = False,
    settings: Settings = [],  # noqa: B006 (typer copies it)
    as_json: Json = False,
) -> None:
    """Plan training and serving: GPU-hours, days, dollars, energy, water, memory, machines.

    Every figure comes with its assumption. --set changes others: seq_len, gradient_checkpointing,
    utilisation, layout.data, .shard, .expert and .pipeline, load.input_per_s, .output_per_s, .context and
    .user_tokens_per_s, world.pue, .co2_kg_per_kwh, .site_water_l_per_kwh, .source_water_l_per_kwh.
    """
    from shoestring import config as configs
    from shoestring.cost import plan as plans
    from shoestring.cost import published
    from shoestring.errors import ConfigError

    if not compare and len(targets) > 1:
        raise ConfigError(
            f"plan takes one model, and {len(targets)} were given; --compare sets runs side by side"
        )
    recipe = Path(targets[0])
    if recipe.suffix == ".toml" and not compare:
        _print_run(recipe, settings, as_json=as_json)
        return
    run = published.runs().get(targets[0])
    data: dict[str, Any] = {"hardware": hardware or (run and run.hardware) or "H800", "devices": devices}
    data |= {"tokens": plans.number(tokens)} if tokens else {}
    data |= {} if price is None else {"per_hour": price}
    config = configs.build(plans.PlanConfig, configs.override(data, settings), where="--set")
    if compare:
        rows = plans.compare(targets, config)
        print_json(rows) if as_json else _print_comparison(rows)
        return
    name = targets[0]
    content = plans.plan(name, _shape(name), config)
    if as_json:
        print_json(content)
    else:
        _print_plan(content, config)


def _shape(name: str) -> "ModelConfig | None":
    """The shape of a preset, a folder or a model on the hub; None for a published run without one."""
    from shoestring.cli.verbs.models import find
    from shoestring.cost.published import runs
    from shoestring.model.presets import PRESETS

    if name in PRESETS:
        return PRESETS[name]
    if name in runs() or not (Path(name).exists() or "/" in name):
        return None
    return find(name)[0]


def _print_run(recipe: Path, settings: list[str], *, as_json: bool) -> None:
    """The plan of a recipe of pretraining on this machine."""
    from dataclasses import asdict

    from shoestring import config as configs
    from shoestring.device import choose, measure_peak
    from shoestring.errors import ConfigError
    from shoestring.train.pretrain_recipe import PretrainConfig
    from shoestring.train.pretrain_run import model_config
    from shoestring.train.runs.plan import LOCAL_SHARE, pretraining_plan

    if recipe.is_file() and "[[stages]]" in recipe.read_text(encoding="utf-8", errors="replace"):
        raise ConfigError(
            f"{recipe} has stages whose answers have lengths that nobody knows before; plan takes recipes of "
            "pretraining, and `shoestring receipt` says afterwards what each stage took"
        )
    config = configs.load(PretrainConfig, recipe, settings)
    run, peak = pretraining_plan(config, model_config(config.model)), measure_peak(choose("cpu"))
    flops = sum(run.flops.values())
    content: dict[str, Any] = {
        "recipe": str(recipe),
        "model": config.model,
        "steps": run.steps,
        "tokens": run.tokens,
        "train_flops": flops,
        "flops": run.flops,
        "seconds": flops / (LOCAL_SHARE * peak),
        "memory_bytes": run.memory.total,
        "memory": asdict(run.memory),
        "assumptions": {
            "seconds": f"{LOCAL_SHARE:.0%} of {peak / 1e9:.0f} GFLOP/s, measured now on this machine; "
            "without reading the corpus and evaluation",
            "memory": "float32, largest resident memory of the process (cost/memory.py)",
        },
    }
    if as_json:
        print_json(content)
        return
    parts = ", ".join(f"{name} {value / flops:.0%}" for name, value in run.flops.items() if value)
    print_fields(
        {
            "recipe": f"{recipe} ({config.model})",
            "steps": f"{run.steps:,}, {amount(run.tokens)} tokens",
            "training": f"{flops:.3g} FLOPs: {parts}",
            "time": f"{content['seconds']:,.0f} s: {content['assumptions']['seconds']}",
            "memory": f"{amount(run.memory.total, 'G')}B: {content['assumptions']['memory']}",
        }
    )
    print("after the run, `shoestring receipt` prints what it took beside this")


def _print_comparison(rows: list[dict[str, Any]]) -> None:
    titles = ("run", "tokens", "active", "hardware", "GPU-hours", "dollars", "kWh", "of the last")
    cells = [
        [
            *(row["run"], amount(row["tokens"]), amount(row["active_parameters"]), row["hardware"]),
            *(f"{row['gpu_hours']:,.0f}", f"{row['dollars']:,.0f}"),
            *(f"{row['footprint']['kwh_with_pue']:,.0f}", f"{row['hours_ratio']:.1%}"),
        ]
        for row in rows
    ]
    print_table(titles, cells)
    for row in rows:
        print(f"{row['run']}: {row['source']}; {row['assumptions']['price']}")
        for note in ("excluded", "outlier"):
            if note in row:
                print(f"  {'without' if note == 'excluded' else 'outlier:'} {row[note]}")


def _print_plan(content: dict[str, Any], config: "PlanConfig") -> None:
    if "published" in content:
        _print_published(content["published"])
    if "training" in content:
        _print_training(content["training"])
    elif "parameters" in content:
        print("training: --tokens 2T plans it")
    if "parameters" in content:
        _print_shape(content)
    elif "cache_bytes_per_token" in content:
        print(f"cache: {content['cache_bytes_per_token']:,} bytes a token (bfloat16)")


def _print_published(row: dict[str, Any]) -> None:
    stages = ", ".join(f"{name} {stage['gpu_hours']:,.0f}" for name, stage in row["stages"].items())
    print_fields(
        {
            "published": f"{row['gpu_hours']:,.0f} {row['hardware']} hours ({stages}), "
            f"${row['dollars']:,.0f}",
            "": f"{row['source']}",
            " ": f"without {row['excluded']}" if "excluded" in row else None,
            "  ": f"outlier: {row['outlier']}" if "outlier" in row else None,
        }
    )


def _print_training(row: dict[str, Any]) -> None:
    low, high = row["gpu_hours_interval"]
    dollars = row["dollars_interval"]
    world = row["footprint"]
    print_fields(
        {
            "training": f"{amount(row['tokens'])} tokens, {row['flops']:.3g} FLOPs "
            f"({row['assumptions']['flops']})",
            "GPU-hours": f"{row['gpu_hours']:,.0f} ({low:,.0f} to {high:,.0f})",
            "days": f"{row['days']:,.1f} on {row['devices']:,} devices",
            "dollars": f"{row['dollars']:,.0f} ({dollars[0]:,.0f} to {dollars[1]:,.0f})",
            "energy": f"{world['kwh_with_pue']:,.0f} kWh, {world['co2_kg'] / 1000:,.1f} t CO2, "
            f"{world['water_l'] / 1000:,.0f} m3 of water",
            "assumed": row["assumptions"]["utilisation"],
            " ": row["assumptions"]["hardware"],
            "  ": row["assumptions"]["price"],
            "   ": row["assumptions"]["footprint"],
        }
    )


def _print_shape(content: dict[str, Any]) -> None:
    count, memory, serving = content["parameters"], content["memory"], content["serving"]
    print_fields(
        {
            "parameters": f"{amount(count['total'])}, {amount(count['active'])} active",
            "exact": f"{amount(content['train_flops_per_token'], 'G')}FLOP a token with attention and head",
            "cache": f"{content['cache_bytes_per_token']:,} bytes a token "
            f"({serving['assumptions']['cache']})",
        }
    )
    if "layout" in memory:
        layout = ", ".join(f"{name} {degree}" for name, degree in memory["layout"].items())
        parts = ", ".join(f"{name} {amount(b, 'G')}B" for name, b in memory["bytes"].items())
        rows = memory["largest_micro_batch"]
        fits = f"micro-batches of up to {rows}" if rows else "not even a row fits"
        print_fields({"memory": f"{layout} ({memory['devices']} devices): {fits}", " ": parts})
        print_fields({"assumed": "; ".join(memory["assumptions"].values())})
    else:
        print(f"memory: {memory['reason']}")
    load = serving["load"]
    print(
        f"serving {load['input_per_s']:g} tokens/s read and {load['output_per_s']:g} written, context "
        f"{load['context']:,}, {load['user_tokens_per_s']:g} tokens/s for each user:"
    )
    titles = ("machine", "devices", "by FLOPs", "by memory", "dollars a day")
    print_table(
        titles,
        [
            [
                *(row["hardware"], f"{row['devices']:,}", f"{row['by_flops']:,.2f}"),
                *(f"{row['by_memory']:,.2f}", f"{row['dollars_per_day']:,.0f}"),
            ]
            for row in serving["machines"]
        ],
    )
    if "published_nodes" in serving:
        nodes = serving["published_nodes"]
        print(f"by DeepSeek's published rates: {nodes['total']:,.2f} nodes of 8 H800")
    print_fields({"assumed": "; ".join(serving["assumptions"].values())})
