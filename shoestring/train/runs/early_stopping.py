"""Early stopping: the best evaluation so far with its model, and the end of a run that no longer improves."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shoestring.errors import CheckpointError
from shoestring.train import checkpoint


@dataclass
class EarlyStopping:
    """Scores of the held-out data, lower is better, as in transformers' EarlyStoppingCallback.

    The best model is kept in `folder/step-<8 digits>`; the two newest of them stay, because a run that goes
    on from an earlier checkpoint comes by the same steps again.
    """

    patience: int
    """Evaluations in a row without a better score after which the run ends; 0: nothing is kept or ended."""
    folder: Path
    best_step: int = 0
    best_score: float = math.inf
    num_worse: int = 0
    """Evaluations since the best one."""

    @property
    def is_due(self) -> bool:
        """Whether the run should end."""
        return self.patience > 0 and self.num_worse >= self.patience

    def judge(self, score: float, step: int, write: Callable[[Path], None]) -> None:
        """Take the score of a step; `write` puts the model into a folder, and is called for a better one."""
        if not self.patience:
            return
        if score < self.best_score:
            checkpoint.save(self.folder, step, write)
            self.best_step, self.best_score, self.num_worse = step, score, 0
        else:
            self.num_worse += 1

    def best_folder(self) -> Path:
        """The folder of the best model; CheckpointError if it is damaged or gone."""
        path = self.folder / f"step-{self.best_step:08d}"
        if not path.is_dir():
            raise CheckpointError(
                f"the best model, {path}, is gone; put it back, or start anew in another --out"
            )
        checkpoint.verify(path)
        return path

    def state(self) -> dict[str, Any]:
        """Values for the trainer's state."""
        score = self.best_score if self.best_step else None
        return {"best_step": self.best_step, "best_score": score, "num_worse": self.num_worse}

    def load_state(self, values: Mapping[str, Any]) -> None:
        """Continue at `state()`; a run of an older version has none."""
        self.best_step, self.num_worse = int(values.get("best_step", 0)), int(values.get("num_worse", 0))
        self.best_score = float(values["best_score"]) if self.best_step else math.inf
