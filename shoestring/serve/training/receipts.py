"""The receipts of a run's stages: their time, energy and cost, as receipt.json has them."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from shoestring.serve.dialects.schema import Schema
from shoestring.serve.training.folder import number, read_json
from shoestring.serve.training.stages import Stage

MAX_TEXT = 200


class Receipt(Schema):
    """The receipt of a stage. None is unknown: nothing is guessed."""

    stage: str
    seconds: float | None
    tokens: float | None
    train_flops: float | None
    joules: float | None
    energy: str
    """`measured`, `estimated` or `unavailable`."""
    currency: str
    machine_rent: float | None
    electricity: float | None
    cpu: str
    cores: float | None


def receipts_of(folder: Path, stages: Iterable[Stage]) -> list[Receipt]:
    """The receipts of the stages that have one."""
    contents = ((stage, read_json(folder, *stage.parts, "receipt.json")) for stage in stages)
    return [_receipt(stage, content) for stage, content in contents if content]


def _receipt(stage: Stage, content: Mapping[str, Any]) -> Receipt:
    energy, money, machine = (_table(content, name) for name in ("energy", "money", "machine"))
    return Receipt(
        stage=stage.name,
        seconds=number(content.get("seconds")),
        tokens=number(content.get("tokens")),
        train_flops=number(content.get("train_flops")),
        joules=number(energy.get("joules")),
        energy=_text(energy.get("how")),
        currency=_text(money.get("currency")),
        machine_rent=number(money.get("machine_rent")),
        electricity=number(money.get("electricity")),
        cpu=_text(machine.get("cpu")),
        cores=number(machine.get("cores")),
    )


def _table(content: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = content.get(name)
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> str:
    return value[:MAX_TEXT] if isinstance(value, str) else ""
