"""A receipt checked against what lies beside it: hashes of data and weights, FLOPs, sums, the run's log."""

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shoestring import config as configs
from shoestring.cost.footprint import Intensities, footprint
from shoestring.data.corpus import corpus_files
from shoestring.data.folder import sha256_of
from shoestring.errors import ShoestringError
from shoestring.model.hf.checkpoint import Checkpoint
from shoestring.receipts.read import StageReceipt, is_pretraining, recipe_table
from shoestring.rows.source import data_files
from shoestring.train.pretrain_recipe import PretrainConfig
from shoestring.train.report.metrics import read
from shoestring.train.report.receipt import digest, output_hashes
from shoestring.train.runs.plan import pretraining_plan

EXACT = 1e-9
"""Relative difference of sums that were made in another order."""


@dataclass(frozen=True, kw_only=True)
class Check:
    """A thing that was checked."""

    name: str
    is_right: bool | None
    """None: it could not be checked, and `detail` says why."""
    detail: str


def verify(receipt: StageReceipt) -> list[Check]:
    """All checks of a receipt but a new run."""
    return [
        _figures(receipt.content),
        *_outputs(receipt),
        _data(receipt),
        _flops(receipt),
        _sums(receipt.content),
        _log(receipt),
        _report(receipt),
    ]


def _figures(content: Mapping[str, Any]) -> Check:
    own = content.get("sha256")
    if own is None:
        return Check(
            name="figures", is_right=None, detail="the receipt is of an older version and has no digest"
        )
    is_right = own == digest(content)
    detail = "the digest of all figures is that of the receipt" if is_right else "a figure was changed"
    return Check(name="figures", is_right=is_right, detail=detail)


def _outputs(receipt: StageReceipt) -> Iterator[Check]:
    """Weights, tokenizer and log, by their hashes."""
    before = _table(receipt.content, "outputs")
    if not before:
        yield Check(name="outputs", is_right=None, detail="the receipt is of an older version: no hashes")
        return
    now = output_hashes(receipt.folder)
    wrong = [f"{name} is missing" for name in before if name not in now]
    wrong += [f"{name} was changed" for name in before if name in now and before[name] != now[name]]
    detail = "; ".join(wrong) or f"{len(before)} files have the hashes of the receipt"
    yield Check(name="outputs", is_right=not wrong, detail=detail)


def _data(receipt: StageReceipt) -> Check:
    """The files that the run learned from, found again by its recipe."""
    files = [file for file in _table(receipt.content, "data").get("files", ()) if "sha256" in file]
    if not files:
        return Check(name="data", is_right=None, detail="the run read no files: its data are tasks")
    try:
        present = set(_present_hashes(receipt.folder))
    except ShoestringError as error:
        return Check(name="data", is_right=False, detail=f"the data cannot be read: {error}")
    wrong = [str(file["path"]) for file in files if file["sha256"] not in present]
    if wrong:
        more = f" and {len(wrong) - 3:,} more" if len(wrong) > 3 else ""
        detail = f"changed or missing: {', '.join(wrong[:3])}{more}"
        return Check(name="data", is_right=False, detail=detail)
    return Check(name="data", is_right=True, detail=f"{len(files):,} files have the hashes of the receipt")


def _present_hashes(folder: Path) -> Iterator[str]:
    """Hashes of the files that the recipe names, as they are now."""
    recipe = recipe_table(folder)
    if is_pretraining(recipe):
        config = configs.load(PretrainConfig, folder / "config.toml")
        yield from (file.sha256 for file in corpus_files(config.data, Counter()))
        return
    for name in ("data", "heldout"):
        for entry in recipe.get(name, ()):
            source = entry["path"] if isinstance(entry, dict) else str(entry)
            yield from (sha256_of(file.path) for file in data_files(source))


def _flops(receipt: StageReceipt) -> Check:
    """The sum of the parts; and for pretraining all of them anew, from the recipe and the model's shape."""
    content, parts = receipt.content, _table(receipt.content, "flops")
    total = content["train_flops"]
    if not parts:
        return Check(name="FLOPs", is_right=None, detail="the receipt is of an older version: no parts")
    if not math.isclose(sum(parts.values()), total, rel_tol=EXACT):
        return Check(
            name="FLOPs",
            is_right=False,
            detail=f"the parts add up to {sum(parts.values()):.6g}, not {total:.6g}",
        )
    if content.get("segments") != 1:
        return Check(name="FLOPs", is_right=True, detail="the parts add up; the run had several segments")
    if not is_pretraining(recipe_table(receipt.folder)):
        return Check(
            name="FLOPs", is_right=True, detail="the parts add up; lengths are not stored, so no more"
        )
    config = configs.load(PretrainConfig, receipt.folder / "config.toml")
    shape = Checkpoint.open(receipt.folder / "model").config
    now = pretraining_plan(config, shape).flops
    wrong = [
        name
        for name in {*now, *parts}
        if not math.isclose(now.get(name, 0), parts.get(name, 0), rel_tol=EXACT)
    ]
    if wrong:
        detail = ", ".join(
            f"{name} {now.get(name, 0):.6g} and not {parts.get(name, 0):.6g}" for name in wrong
        )
        return Check(name="FLOPs", is_right=False, detail=f"counted anew: {detail}")
    return Check(name="FLOPs", is_right=True, detail=f"{total:.4g}, counted anew from recipe and shape")


def _sums(content: Mapping[str, Any]) -> Check:
    """Seconds, money and footprint, which follow from other figures."""
    wrong = []
    seconds = sum(row.get("seconds", 0.0) for row in content.get("history", ()))
    if not math.isclose(seconds, content.get("seconds", 0.0), rel_tol=EXACT):
        wrong.append(f"seconds are {seconds:g} by the history")
    money, joules = _table(content, "money"), _table(content, "energy").get("joules")
    for name, price, amount in (
        ("machine_rent", "price_per_hour", seconds / 3600),
        ("electricity", "price_per_kwh", joules / 3.6e6 if isinstance(joules, int | float) else None),
    ):
        if not isinstance(money.get(price), int | float) or amount is None:
            continue
        if not math.isclose(money[price] * amount, float(money.get(name) or 0), rel_tol=EXACT):
            wrong.append(f"{name} is {money[price] * amount:g}")
    world = content.get("footprint")
    if isinstance(world, dict) and isinstance(joules, int | float):
        now = footprint(joules, Intensities(**world.get("assumptions", {})))
        wrong += [
            f"{name} is {now[name]:g}"
            for name in ("kwh", "kwh_with_pue", "co2_kg", "water_l")
            if not math.isclose(now[name], world.get(name, math.nan), rel_tol=EXACT)
        ]
    detail = "; ".join(wrong) or "seconds, money and footprint follow from the other figures"
    return Check(name="sums", is_right=not wrong, detail=detail)


def _log(receipt: StageReceipt) -> Check:
    """Steps and tokens as metrics.jsonl ends."""
    file = receipt.folder / "metrics.jsonl"
    rows = read(file) if file.is_file() else []
    if not rows:
        return Check(name="log", is_right=None, detail="there is no metrics.jsonl")
    step, last = receipt.content.get("history", [{}])[-1].get("step"), rows[-1]
    wrong = [] if last.get("step") == step else [f"the log ends at step {last.get('step')}, not {step}"]
    tokens, total = last.get("tokens"), receipt.content.get("tokens")
    if is_pretraining(recipe_table(receipt.folder)) and tokens != total:
        wrong.append(f"the log ends at {tokens} tokens, not {total}")
    return Check(name="log", is_right=not wrong, detail="; ".join(wrong) or f"it ends at step {step}")


def _report(receipt: StageReceipt) -> Check:
    """The figures that report.json shares with the receipt."""
    try:
        report = json.loads((receipt.folder / "report.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return Check(name="report", is_right=None, detail="there is no report.json")
    names = [name for name in ("train_flops", "seconds", "energy", "money") if name in report]
    wrong = [name for name in names if report[name] != receipt.content.get(name)]
    detail = f"report.json has other {', '.join(wrong)}" if wrong else "report.json has the same figures"
    return Check(name="report", is_right=not wrong, detail=detail)


def _table(content: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = content.get(name)
    return value if isinstance(value, dict) else {}
