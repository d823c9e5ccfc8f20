"""The generators of reasoning-gym, each a task by its name (arXiv 2505.24760)."""

import importlib.util
import json
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from shoestring.errors import ConfigError, DataError, MissingDependencyError
from shoestring.tasks.answers import split_reply
from shoestring.tasks.guard import RefusedCode, only_arithmetic
from shoestring.tasks.problems import split_of
from shoestring.tasks.task import Example, Split, Task, key_of

CHUNK = 200
"""Problems of one of the library's data sets."""
MAX_EMPTY_CHUNKS = 10
"""Chunks in a row without a new problem; after so many the split ends."""
TEST_ONE_IN = 4
"""A larger share than in other tasks: finding a test problem takes this many draws, and some are slow."""
MAX_ANSWER_CHARS = 20_000


@dataclass(frozen=True, kw_only=True)
class Gym(Task):
    """One generator with its options; raises ConfigError for those that the library does not have."""

    generator: str
    options: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the generator's own configuration, except `seed` and `size`."""

    def __post_init__(self) -> None:
        if importlib.util.find_spec("reasoning_gym") is None:
            raise MissingDependencyError(
                f"the task {self.name} needs reasoning-gym: pip install reasoning-gym (extra 'gym')"
            )
        if wrong := {"seed", "size"} & set(self.options):
            raise ConfigError(f"{self.name} takes no {wrong.pop()!r}: the run's seed decides the problems")
        self._dataset(0)  # loads the library, which takes seconds, and raises for wrong names

    @property
    def name(self) -> str:
        return f"reasoning_gym:{self.generator}"

    def examples(self, split: Split, seed: int) -> Iterator[Example]:
        """Generated problems; the test split holds each question once and ends when no new ones come.

        Raises DataError for a split without problems.
        """
        rng = random.Random(f"gym:{split}:{seed}")
        keys: set[str] = set()
        empty_chunks = 0
        while empty_chunks < MAX_EMPTY_CHUNKS:
            empty_chunks += 1
            chunk_seed = rng.getrandbits(31)
            for index in range(CHUNK):
                entry = self._dataset(chunk_seed)[index]
                key = key_of(entry["question"])
                if split_of(key, TEST_ONE_IN) != split or (split == "test" and key in keys):
                    continue
                empty_chunks = 0
                keys |= {key} if split == "test" else set()
                plain = json.loads(json.dumps(entry, default=str))
                place = {"seed": chunk_seed, "index": index, "entry": plain}
                yield Example(key=key, question=entry["question"], answer=place)
        if split == "train" or not keys:
            raise DataError(f"{self.name} has no {split} problems with these options")

    def reward(self, example: Example, text: str) -> float:
        """The generator's own score, 0 to 1. It may take forever, so the task is not pure."""
        place = example.answer
        dataset = self._dataset(place["seed"])
        # Generated again, since JSON loses data of some checkers; a few generators do not repeat themselves.
        entry = _entry(self.generator, self._options, place["seed"], place["index"])
        if key_of(entry["question"]) != example.key:
            entry = place["entry"]
        answer = split_reply(text).answer
        if len(answer) > MAX_ANSWER_CHARS:
            return 0.0
        try:
            with only_arithmetic():
                return float(dataset.score_answer(answer, entry))
        except RefusedCode:
            return 0.0
        except Exception:
            # Some checkers raise for a malformed answer; one that raises for the right answer is broken.
            dataset.score_answer(entry["answer"], entry)
            return 0.0

    @property
    def _options(self) -> str:
        return json.dumps(dict(self.options), sort_keys=True)

    def _dataset(self, seed: int) -> Any:
        return _dataset(self.generator, self._options, seed)


@lru_cache(maxsize=64)
def _entry(generator: str, options: str, seed: int, index: int) -> dict[str, Any]:
    """One problem, cached for the next answer to it: some generators take a second."""
    entry: dict[str, Any] = _dataset(generator, options, seed)[index]
    return entry


@lru_cache(maxsize=8)
def _dataset(generator: str, options: str, seed: int) -> Any:
    from reasoning_gym.factory import DATASETS, create_dataset

    if generator not in DATASETS:
        raise ConfigError(
            f"reasoning-gym has no generator {generator!r}; it has {', '.join(sorted(DATASETS))}"
        )
    try:
        return create_dataset(generator, seed=seed, size=CHUNK, **json.loads(options))
    except (TypeError, AssertionError, ValueError) as error:
        raise ConfigError(f"reasoning_gym:{generator} refuses its options: {error}") from None
