"""QR codes (ISO/IEC 18004) as paths that an SVG can draw: an authenticator app reads its secret from one."""

from itertools import groupby

import segno

BORDER = 4
"""Modules of quiet space around a code, as the standard asks."""


def qr_path(text: str) -> tuple[int, str]:
    """The side of a code's square in modules, quiet space included, and the path of its dark modules."""
    rows = [bytes(row) for row in segno.make(text, error="m", micro=False).matrix]
    return len(rows) + 2 * BORDER, "".join(_row(row, y) for y, row in enumerate(rows, BORDER))


def _row(row: bytes, y: int) -> str:
    """The path of a row: one bar for each run of dark modules."""
    text, x = "", BORDER
    for is_dark, run in groupby(row):
        width = len(list(run))
        if is_dark:
            text += f"M{x} {y}h{width}v1h-{width}z"
        x += width
    return text
