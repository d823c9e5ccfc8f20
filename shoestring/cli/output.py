"""Printed results: JSON for programs, aligned lines and tables for people."""

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from shoestring.cli.terminal import UNPRINTABLE, printable


def print_json(data: Any) -> None:
    """Print one JSON document, with control characters escaped that could change the terminal."""
    text = json.dumps(data, indent=2, ensure_ascii=False)
    print(UNPRINTABLE.sub(lambda match: f"\\u{ord(match[0]):04x}", text))


def progress(quiet: bool) -> Callable[[str], None]:
    """A function that prints a line of progress on stderr; a quiet one prints nothing."""
    return lambda text: None if quiet else print(printable(text), file=sys.stderr)


def print_fields(fields: Mapping[str, Any]) -> None:
    """Print `name  value` lines with aligned values; a field that is None has nothing to say."""
    rows = {name: value for name, value in fields.items() if value is not None}
    width = max(map(len, rows), default=0)
    for name, value in rows.items():
        print(f"{name:<{width}}  {value}")


def amount(number: float, billion: str = "B") -> str:
    """A number with its unit: 15706484224 -> '15.71 B'; FLOPs and bytes take `billion="G"`."""
    for size, unit in ((1e12, "T"), (1e9, billion), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.2f} {unit}"
    return f"{number:g}"


def print_table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print columns under their titles; columns of numbers are aligned to the right."""
    widths = [max(map(len, column)) for column in zip(titles, *rows, strict=True)]
    numeric = [
        all(cell[:1].isdecimal() or cell == "-" for cell in column) for column in zip(*rows, strict=True)
    ]
    for row in (titles, *rows):
        cells = [
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, numeric, strict=True)
        ]
        print("  ".join(cells).rstrip())
