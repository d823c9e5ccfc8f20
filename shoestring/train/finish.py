"""How every training story ends: its time, final model, receipt and report, and a bad batch kept."""

import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from shoestring.durable import write_atomic
from shoestring.errors import NonFiniteError
from shoestring.train import state
from shoestring.train.report import receipt
from shoestring.train.report.energy import EnergyMeter


class Clock:
    """The run's earlier segments and the one now running."""

    def __init__(self, earlier: Sequence[receipt.Segment], meter: EnergyMeter) -> None:
        self._earlier, self._meter = list(earlier), meter
        self._began, self._start = receipt.utc_now(), time.monotonic()

    def segments(self) -> list[receipt.Segment]:
        now = receipt.Segment(
            start=self._began,
            end=receipt.utc_now(),
            seconds=time.monotonic() - self._start,
            energy=self._meter.read(),
        )
        return [*self._earlier, now]


def replace_folder(final: Path, write: Callable[[Path], None]) -> None:
    """`write` a new folder as `final`, replacing one that an earlier finish left."""
    fresh = final.with_name(f"{final.name}.tmp")
    shutil.rmtree(fresh, ignore_errors=True)
    write(fresh)
    shutil.rmtree(final, ignore_errors=True)
    fresh.rename(final)


def settle(out: Path, paid: receipt.Receipt, summary: Mapping[str, Any], *, peak: float) -> dict[str, Any]:
    """Write receipt.json, and report.json: the summary with what the run cost; returns the report."""
    bill = receipt.write(paid, out / "receipt.json")
    flops = paid.train_flops
    report = dict(summary) | {
        "train_flops": flops,
        "seconds": bill["seconds"],
        "achieved_peak_share": flops / bill["seconds"] / peak if bill["seconds"] else None,
        "energy": bill["energy"],
        "money": bill["money"],
    }
    write_atomic(out / "report.json", json.dumps(report, indent=2) + "\n")
    return report


def keep_batch(out: Path, step: int, batch: Mapping[str, Tensor], error: NonFiniteError) -> NonFiniteError:
    """Save the batch that broke the step after `step`; the error to raise, which says where it is."""
    state.save_state(out / "nonfinite-batch", batch, {"step": step, "error": str(error)})
    return NonFiniteError(
        f"step {step + 1}: {error}; nothing was updated, the batch is in "
        f"{out / 'nonfinite-batch.safetensors'}; lower optim.lr in {out / 'config.toml'} and --resume"
    )


def mean_of(rows: Sequence[Mapping[str, Any]], key: str) -> float | None:
    """The mean of a figure over the rows of a log that have it."""
    values = [row[key] for row in rows if row.get(key) is not None]
    return sum(values) / len(values) if values else None
