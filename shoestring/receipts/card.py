"""A Hugging Face model card of a run: lineage, data with licenses and hashes, costs, how to check them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from shoestring.receipts.read import StageReceipt

MAX_FILES = 20


def model_card(name: str, stages: Sequence[StageReceipt]) -> str:
    """The card as Markdown with its YAML header."""
    from huggingface_hub import ModelCardData

    starts = [_table(stage.content, "data").get("start") for stage in stages]
    bases = [start["name"] for start in starts if isinstance(start, dict) and "/" in str(start.get("name"))]
    header = ModelCardData(
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=["shoestring"],
        base_model=bases[0] if bases else None,
    )
    lines = ["---", header.to_yaml(), "---", "", f"# {_text(name)}", ""]
    lines += [
        "Trained by shoestring; every figure is from the run's receipt, and `shoestring receipt verify` "
    ]
    lines[-1] += "checks it."
    lines += ["", "## Lineage", ""]
    for number, stage in enumerate(stages, start=1):
        lines.append(f"{number}. {_lineage(stage)}")
    lines += ["", "## Training data", ""]
    for stage in stages:
        lines += _data(stage)
    lines += ["", "## What it took", "", "| stage | FLOPs | hours | kWh | kg CO2 | litres of water | money |"]
    lines.append("|---|---|---|---|---|---|---|")
    lines += [_cost(stage) for stage in stages]
    lines += ["", *_assumptions(stages), ""]
    return "\n".join(lines)


def _lineage(stage: StageReceipt) -> str:
    content = stage.content
    start, recipe = _table(content, "data").get("start"), _table(content, "recipe")
    origin = "random weights"
    if isinstance(start, dict):
        marks = [str(start[key]) for key in ("commit",) if key in start]
        marks += [f"{file} {sha}" for file, sha in _table(start, "sha256").items()]
        origin = f"`{_text(start.get('name'))}`" + (f" ({', '.join(marks)})" if marks else "")
    elif isinstance(start, str):
        origin = f"`{_text(start)}`"
    elif "tasks" in recipe:
        origin = f"`{_text(recipe.get('model'))}`"
    tokens = content.get("tokens") or 0
    code = _table(content, "code")
    what = f"**{_text(stage.stage)}**: from" if stage.stage else "From"
    return (
        f"{what} {origin}, {tokens:,} tokens, seed {content.get('seed')}, code {code.get('git_commit')} "
        f"(version {code.get('version')})."
    )


def _data(stage: StageReceipt) -> list[str]:
    table = _table(stage.content, "data")
    lines = [f"### {_text(stage.stage)}", ""] if stage.stage else []
    files = list(table.get("files", ()))
    if files:
        licenses = Counter(str(file.get("license") or "unknown") for file in files)
        shares = ", ".join(f"{_text(license)}: {count:,}" for license, count in licenses.most_common(10))
        lines += [
            f"{len(files):,} files; licenses: {shares}.",
            "",
            "| file | license | sha256 |",
            "|---|---|---|",
        ]
        lines += [
            f"| {_text(file['path'])} | {_text(file.get('license') or 'unknown')} | {file.get('sha256')} |"
            for file in files[:MAX_FILES]
        ]
        lines += [f"| and {len(files) - MAX_FILES:,} more, in receipt.json | | |"] * (len(files) > MAX_FILES)
    tasks = [str(task.get("name")) for task in table.get("tasks", ())]
    lines += (
        [f"Problems of {', '.join(map(_text, tasks))}, which a program makes and checks."] if tasks else []
    )
    return [*lines, ""]


def _cost(stage: StageReceipt) -> str:
    content = stage.content
    world, money = _table(content, "footprint"), _table(content, "money")
    rent = money.get("machine_rent")
    cells = [
        _text(stage.stage or "training"),
        f"{content['train_flops']:.3g}",
        f"{float(content.get('seconds') or 0) / 3600:.2f}",
        *(
            f"{world[key]:.3g}" if key in world else "unknown"
            for key in ("kwh_with_pue", "co2_kg", "water_l")
        ),
        f"{rent:.2f} {money.get('currency')}" if isinstance(rent, int | float) else "no price stated",
    ]
    return f"| {' | '.join(cells)} |"


def _assumptions(stages: Sequence[StageReceipt]) -> list[str]:
    """The sources of the figures, each once."""
    details = [str(_table(stage.content, "energy").get("detail", "")) for stage in stages]
    details += [
        str(_table(_table(stage.content, "footprint"), "assumptions").get("source", "")) for stage in stages
    ]
    return [f"* {_text(detail)}" for detail in dict.fromkeys(details) if detail]


def _text(value: Any) -> str:
    """A text that is no markup of a table, a heading or HTML."""
    return " ".join(str(value).replace("|", "/").replace("<", "&lt;").split())


def _table(content: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = content.get(name)
    return value if isinstance(value, dict) else {}
