"""Samples of a stage of reinforcement: answers of its first, last and some steps between."""

from collections.abc import Mapping, Sequence
from typing import Any

MAX_STEPS = 12
MAX_SAMPLES = 4
"""Of a step."""
MAX_TEXT = 4000

Sample = dict[str, Any]


class Samples:
    """The samples of the first and the last step and of others, spread evenly."""

    def __init__(self) -> None:
        self.by_step: dict[int, list[Sample]] = {}

    def add(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Add rows of samples.jsonl."""
        for row in rows:
            question, text, parts = row.get("question"), row.get("text"), row.get("parts")
            if not isinstance(question, str) or not isinstance(text, str) or not isinstance(parts, dict):
                continue
            step = row["step"]
            if step not in self.by_step and len(self.by_step) >= MAX_STEPS:
                self._drop()
            samples = self.by_step.setdefault(step, [])
            if len(samples) < MAX_SAMPLES:
                right = parts.get("accuracy")
                samples.append(
                    {
                        "question": question[:MAX_TEXT],
                        "text": text[:MAX_TEXT],
                        "is_right": isinstance(right, int | float) and right >= 1,
                        "is_cut": bool(row.get("truncated")),
                    }
                )

    def _drop(self) -> None:
        """Leave out the step between the first and the last whose neighbours are nearest to each other."""
        steps = sorted(self.by_step)
        inner = range(1, len(steps) - 1)
        del self.by_step[steps[min(inner, key=lambda i: steps[i + 1] - steps[i - 1])]]
