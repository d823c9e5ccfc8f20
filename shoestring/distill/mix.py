"""A mix of verified and general conversations, three to one as in R1, in one file to fine-tune on."""

import json
import random
from collections.abc import Sequence
from pathlib import Path

from shoestring.durable import write_stream
from shoestring.errors import ConfigError
from shoestring.rows.source import source_rows


def mix(
    verified: Sequence[str | Path],
    general: Sequence[str | Path],
    out: Path,
    *,
    ratio: float = 3.0,
    seed: int = 0,
) -> dict[str, int]:
    """Write all verified conversations and one general one for every `ratio` of them, shuffled, to `out`.

    Both come from files, folders or data sets of the hub, in any form that fine-tuning reads.

    R1 had 600k and 200k (arXiv 2501.12948, section 2.3.3). General ones are drawn without repetition: all of
    them if there are too few. Returns the counts of both. Raises DataError naming file and line.
    """
    if not ratio > 0:
        raise ConfigError(f"ratio = {ratio} must be over 0")
    rng = random.Random(seed)
    verified_lines, general_lines = _lines(verified), _lines(general)
    count = min(round(len(verified_lines) / ratio), len(general_lines))
    lines = verified_lines + rng.sample(general_lines, count)
    rng.shuffle(lines)
    write_stream(out, lambda file: file.writelines(lines), needed_bytes=sum(map(len, lines)))
    return {"verified": len(verified_lines), "general": count}


def _lines(sources: Sequence[str | Path]) -> list[bytes]:
    """The rows of some sources as lines of jsonl; fine-tuning checks their content."""
    rows = (row for source in sources for row in source_rows(str(source)))
    return [json.dumps(dict(row.values), default=str).encode() + b"\n" for row in rows]
