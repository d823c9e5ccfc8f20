"""What verbs print: JSON for programs, aligned lines for people."""

import json
from collections.abc import Mapping
from typing import Any


def print_json(data: Any) -> None:
    """One JSON document on stdout."""
    print(json.dumps(data, indent=2, ensure_ascii=False))


def print_fields(fields: Mapping[str, Any]) -> None:
    """`name  value` lines, values aligned."""
    width = max(map(len, fields), default=0)
    for name, value in fields.items():
        print(f"{name:<{width}}  {value}")


def amount(number: float, billion: str = "B") -> str:
    """15706484224 -> '15.71 B'; FLOPs and bytes take `billion="G"`."""
    for size, unit in ((1e12, "T"), (1e9, billion), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.2f} {unit}"
    return f"{number:g}"
