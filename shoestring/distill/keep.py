"""Filters for a teacher's answers: right, well formed, in one language, no loops, few per problem."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from shoestring.errors import ConfigError
from shoestring.tasks.answers import THINK, THINK_END
from shoestring.tasks.rewards import SCRIPTS, format_reward, language_reward

COMPLETE = ("stop", "end_turn", "eos", "")
"""Finish reasons of a complete answer, as servers spell them; some give none."""
LONGEST_PERIOD = 256
"""Longest stretch of text, in characters, that is recognized when it repeats."""
REPEATS = 4
FILTERS = (
    "truncated",
    "unverified",
    "wrong",
    "format",
    "language",
    "long",
    "looping",
    "duplicate",
    "surplus",
)
"""Reasons to drop an answer, in the order of the filters: only the first counts."""
_SHINGLE = 8


@dataclass(frozen=True, kw_only=True)
class KeepConfig:
    """The filters of R1's rejection sampling (arXiv 2501.12948, section 2.3.3)."""

    reward: float = 1.0
    """Smallest reward of a right answer."""
    thinking: bool | None = None
    """Whether an answer must begin with one think block and have text after it. None: where the teacher's
    tokenizer has tokens for thinking; of a server's answers, where there are think tags."""
    language: str = ""
    """en or zh; empty: any."""
    language_share: float = 0.9
    """Smallest share of the thinking's words in that language."""
    max_characters: int = 0
    """Longest text, thinking included; 0: any."""
    loop_characters: int = 200
    """Length from which repetition of a stretch of text is a loop; 0: loops are allowed."""
    per_problem: int = 4
    """Most answers to one problem."""
    order: Literal["shortest", "diverse"] = "shortest"
    """Selection of them: the shortest, or the shortest and then each time the one least like the selected."""

    def __post_init__(self) -> None:
        if self.language and self.language not in SCRIPTS:
            raise ConfigError(f"keep.language = {self.language!r} is not one of {', '.join(SCRIPTS)}")
        if not 0.0 <= self.language_share <= 1.0:
            raise ConfigError(f"keep.language_share = {self.language_share} is not between 0 and 1")
        if not math.isfinite(self.reward):
            raise ConfigError(f"keep.reward = {self.reward} is not a finite number")
        for name, least in (("max_characters", 0), ("loop_characters", 0), ("per_problem", 1)):
            if getattr(self, name) < least:
                raise ConfigError(f"keep.{name} = {getattr(self, name)} must be at least {least}")
        if self.order not in ("shortest", "diverse"):
            raise ConfigError(f"keep.order = {self.order!r} is neither shortest nor diverse")


def rejection(text: str, finish_reason: str, reward: float | None, config: KeepConfig) -> str | None:
    """The first filter that drops this answer by itself; None if it passes all of them."""
    if finish_reason not in COMPLETE:
        return "truncated"
    if reward is None:
        return "unverified"
    if reward < config.reward:
        return "wrong"
    if _must_think(text, config) and format_reward(text) < 1.0:
        return "format"
    if config.language and language_reward(text, config.language) < config.language_share:
        return "language"
    if config.max_characters and len(text) > config.max_characters:
        return "long"
    if config.loop_characters and is_looping(text, config.loop_characters):
        return "looping"
    return None


def _must_think(text: str, config: KeepConfig) -> bool:
    if config.thinking is None:
        return THINK in text or THINK_END in text
    return config.thinking


def is_looping(text: str, characters: int) -> bool:
    """Return whether a stretch of at least `characters` repeats some period, REPEATS times or more."""
    codes = np.frombuffer(text.encode("utf-32-le", "replace"), dtype=np.uint32)
    for period in range(1, min(LONGEST_PERIOD, len(codes) // REPEATS) + 1):
        min_matches = max(characters, REPEATS * period) - period  # equal characters in a row
        breaks = np.flatnonzero(codes[period:] != codes[:-period])
        edges = np.concatenate(([-1], breaks, [len(codes) - period]))
        if int(np.diff(edges).max()) - 1 >= min_matches:
            return True
    return False


def select(texts: Sequence[str], config: KeepConfig) -> list[int]:
    """Places of the answers to learn from among a problem's right and different ones, best first."""
    by_length = sorted(range(len(texts)), key=lambda place: (len(texts[place]), texts[place]))
    if config.order == "shortest":
        return by_length[: config.per_problem]
    shingles = {place: _shingles(texts[place]) for place in by_length}
    selection, others = by_length[:1], by_length[1:]
    while others and len(selection) < config.per_problem:
        nearest = {place: max(_likeness(shingles[place], shingles[s]) for s in selection) for place in others}
        best = min(others, key=lambda place: nearest[place])  # the shorter of equals, which comes first
        selection.append(best)
        others.remove(best)
    return selection


def _shingles(text: str) -> set[str]:
    return {text[start : start + _SHINGLE] for start in range(max(len(text) - _SHINGLE + 1, 1))}


def _likeness(one: set[str], other: set[str]) -> float:
    """Jaccard similarity: shared shingles over all of both."""
    return len(one & other) / len(one | other)
