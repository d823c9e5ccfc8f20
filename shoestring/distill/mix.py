"""A mix of verified and general conversations, three to one as in R1, in one file to fine-tune on."""

import random
from collections.abc import Sequence
from pathlib import Path

from shoestring.durable import write_stream
from shoestring.errors import ConfigError, DataError


def mix(
    verified_paths: Sequence[Path],
    general_paths: Sequence[Path],
    out: Path,
    *,
    ratio: float = 3.0,
    seed: int = 0,
) -> dict[str, int]:
    """Write all verified conversations and one general one for every `ratio` of them, shuffled, to `out`.

    R1 had 600k and 200k (arXiv 2501.12948, section 2.3.3). General ones are drawn without repetition: all of
    them if there are too few. Returns the counts of both. Raises DataError naming a file that is not jsonl.
    """
    if not ratio > 0:
        raise ConfigError(f"ratio = {ratio} must be over 0")
    rng = random.Random(seed)
    verified_lines, general_lines = _lines(verified_paths), _lines(general_paths)
    count = min(round(len(verified_lines) / ratio), len(general_lines))
    lines = verified_lines + rng.sample(general_lines, count)
    rng.shuffle(lines)
    write_stream(out, lambda file: file.writelines(lines), needed_bytes=sum(map(len, lines)))
    return {"verified": len(verified_lines), "general": count}


def _lines(paths: Sequence[Path]) -> list[bytes]:
    """The conversations of some files, as bytes; fine-tuning checks their content."""
    lines: list[bytes] = []
    for path in paths:
        try:
            rows = path.read_bytes().split(b"\n")
        except OSError as error:
            raise DataError(f"cannot read {path}: {error.strerror}") from None
        for number, line in enumerate(rows, start=1):
            if line.strip() and not line.lstrip().startswith(b"{"):
                raise DataError(f"{path} line {number} is not a JSON object; give a jsonl file")
        lines += [line + b"\n" for line in rows if line.strip()]
    return lines
