"""Verified conversations mixed with general ones, three to one as R1 did, into one file to fine-tune on."""

import random
from collections.abc import Sequence
from pathlib import Path

from shoestring.durable import write_stream
from shoestring.errors import ConfigError, DataError


def mix(
    verified: Sequence[Path], general: Sequence[Path], out: Path, *, ratio: float = 3.0, seed: int = 0
) -> dict[str, int]:
    """All verified conversations and, for every `ratio` of them, one general one, shuffled into `out`.

    R1's 600k to 200k (arXiv 2501.12948, section 2.3.3). General ones are drawn without repetition: all are
    taken where there are too few. Returns how many of each. Raises DataError naming a file that is not jsonl.
    """
    if not ratio > 0:
        raise ConfigError(f"ratio = {ratio} must be over 0")
    draw = random.Random(seed)
    own, others = _lines(verified), _lines(general)
    taken = draw.sample(others, min(round(len(own) / ratio), len(others)))
    lines = own + taken
    draw.shuffle(lines)
    write_stream(out, lambda file: file.writelines(lines), needed_bytes=sum(map(len, lines)))
    return {"verified": len(own), "general": len(taken)}


def _lines(paths: Sequence[Path]) -> list[bytes]:
    """The conversations of some files, undecoded; whether they are sound shows when they are encoded."""
    lines: list[bytes] = []
    for path in paths:
        try:
            found = path.read_bytes().split(b"\n")
        except OSError as error:
            raise DataError(f"cannot read {path}: {error.strerror}") from None
        for number, line in enumerate(found, start=1):
            if line.strip() and not line.lstrip().startswith(b"{"):
                raise DataError(f"{path} line {number} is not a JSON object; give a jsonl file")
        lines += [line + b"\n" for line in found if line.strip()]
    return lines
