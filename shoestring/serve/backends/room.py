"""The choice of models to unload for one that is asked for."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Resident:
    """A model in memory."""

    name: str
    num_bytes: int
    is_idle: bool
    """Nobody uses it, so that it may go."""
    last_use_s: float
    """Time of the end of its last reply."""


def to_unload(residents: Sequence[Resident], need: int, free: int) -> list[str] | None:
    """Names of idle models without which `need` bytes fit in the `free` ones and theirs.

    Those that were used least recently go first, and none that need not. None when it would not fit even
    without all idle ones.
    """
    idle = sorted((each for each in residents if each.is_idle), key=lambda each: each.last_use_s)
    leaving: list[Resident] = []
    while free < need:
        if not idle:
            return None
        leaving.append(idle.pop(0))
        free += leaving[-1].num_bytes
    for each in reversed(leaving):  # a large one may have made those before it needless
        if free - each.num_bytes >= need:
            leaving.remove(each)
            free -= each.num_bytes
    return [each.name for each in leaving]
