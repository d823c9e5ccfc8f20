"""A sentence about conversations that are left out or shortened, with the settings that help."""

import logging
from collections.abc import Mapping

from shoestring.tokenizer.overlong import WARN_FROM, WARN_SHARE

log = logging.getLogger(__name__)


def warn_of_left_out(counts: Mapping[str, int], *, seq_len: int, longest: int) -> None:
    """Warn when over a tenth is left out or shortened; `counts` has used, too_long, unlearned and so on."""
    missing, total = _missing(counts), _total(counts)
    if missing > WARN_SHARE * max(total, WARN_FROM):
        log.warning("%s", left_out_sentence(counts, seq_len=seq_len, longest=longest))


def left_out_sentence(counts: Mapping[str, int], *, seq_len: int, longest: int) -> str:
    """The number of conversations that are not learned whole, by the reason; empty if all are."""
    reasons = {
        "too_long": f"longer than seq_len = {seq_len} tokens (the longest has {longest:,}; "
        f"--set seq_len={longest}, or --set overlong=truncate)",
        "unlearned": "marked not to be learned, by weight 0 or train false",
        "bad_rows": "without a conversation (--set bad_rows=error names the first)",
        "shortened": f"shortened to seq_len = {seq_len} tokens (the longest has {longest:,}; "
        f"--set seq_len={longest})",
    }
    parts = [f"{counts[name]:,} {text}" for name, text in reasons.items() if counts.get(name)]
    missing, total = _missing(counts), _total(counts)
    if not missing:
        return ""
    numbers = f"{missing:,} of {total:,} conversations ({missing / total:.0%})"
    return f"{numbers} are not learned whole: {'; '.join(parts)}"


def _missing(counts: Mapping[str, int]) -> int:
    return sum(counts.get(name, 0) for name in ("too_long", "unlearned", "bad_rows", "shortened"))


def _total(counts: Mapping[str, int]) -> int:
    return sum(counts.get(name, 0) for name in ("used", "too_long", "unlearned", "bad_rows"))
