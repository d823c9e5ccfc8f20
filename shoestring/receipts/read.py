"""Receipts of a run's folder: its own, or those of its stages."""

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shoestring.errors import ConfigError, DataError

FILE = "receipt.json"
MAX_BYTES = 256 << 20


@dataclass(frozen=True, kw_only=True)
class StageReceipt:
    """The receipt of one training, in the folder that it was made in."""

    stage: str
    """Empty for a run of one training."""
    folder: Path
    content: Mapping[str, Any]


def receipts(run: Path) -> list[StageReceipt]:
    """The receipts of a run, in the order in which they were written; errors for a run without any."""
    if not run.is_dir():
        raise ConfigError(f"there is no run {run}; give the folder that --out named")
    files = [run / FILE] if (run / FILE).is_file() else []
    files = files or [*run.glob(f"*/{FILE}"), *run.glob(f"*/student/{FILE}")]
    if not files:
        raise DataError(f"{run} has no {FILE}, which a run writes at its end; --resume finishes one")
    rows = [
        StageReceipt(stage=_stage(run, file), folder=file.parent, content=read_receipt(file))
        for file in files
    ]
    return sorted(rows, key=lambda row: str(row.content.get("start", "")))


def read_receipt(file: Path) -> dict[str, Any]:
    """The contents of a receipt, which is not trusted. Raises DataError naming its fault."""
    try:
        if file.stat().st_size > MAX_BYTES:
            raise DataError(f"{file} is larger than {MAX_BYTES >> 20} MiB, so it is no receipt")
        content = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"cannot read {file}: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise DataError(f"{file} is not JSON, so it is no receipt of this program") from None
    if not isinstance(content, dict) or not isinstance(content.get("train_flops"), int | float):
        raise DataError(f"{file} is no receipt of this program: it has no train_flops")
    return content


def recipe_table(folder: Path) -> dict[str, Any]:
    """The recipe of a run, as its config.toml has it. DataError where it cannot be read."""
    try:
        return tomllib.loads((folder / "config.toml").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{folder / 'config.toml'} cannot be read ({error}); put the recipe back") from None


def is_pretraining(recipe: Mapping[str, Any]) -> bool:
    """Return whether a recipe is one of pretraining: its data are a table of a corpus."""
    return isinstance(recipe.get("data"), dict) and "seq_len" in recipe


def _stage(run: Path, file: Path) -> str:
    parts = file.relative_to(run).parts
    return "" if len(parts) == 1 else parts[0]
