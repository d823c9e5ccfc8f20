"""RunConfig: settings of every kind of training, and which of them a run that goes on may change."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, Literal, Protocol, TypeVar, get_args

from shoestring import config as configs
from shoestring.errors import ConfigError
from shoestring.train.report.trackers import check_names

CRASH_FOLDER = "crash"
"""The folder of the last crash in that of the run: traceback.txt, batch.safetensors and batch.json."""
MAX_TAG = 40
"""Letters of a tag."""
Precision = Literal["auto", "bf16", "fp8", "fp4"]
"""Of the factors of matrix products."""


class Recipe(Protocol):
    """A dataclass of settings, some of which may change on a resume."""

    CAN_CHANGE: frozenset[str]
    """Dotted names of the fields, or tables, that decide nothing about the steps before."""


R = TypeVar("R", bound=Recipe)


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Settings that every kind of training has."""

    seed: int = 0
    gradient_checkpointing: bool = False
    """Keep only each layer's input for the backward pass and compute the layer again there: the same result
    in less memory, for a third more work (arXiv 1604.06174)."""
    report_to: tuple[str, ...] = ()
    """Trackers that get each step's figures too: tensorboard, trackio, wandb."""
    note: str = ""
    """A text about the run, for whoever looks at it later."""
    tags: tuple[str, ...] = ()
    """Words by which runs are found and compared."""

    CAN_CHANGE = frozenset(
        {
            *("gradient_checkpointing", "report_to", "note", "tags"),
            *("optim.lr", "optim.muon_lr", "optim.max_grad_norm"),
        }
    )

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise ConfigError(f"seed = {self.seed} must be at least 0")
        check_tags(self.tags)
        check_names(self.report_to)


def check_tags(tags: Iterable[str]) -> None:
    """Raise ConfigError for a tag that is not one printable word."""
    for tag in tags:
        if not 0 < len(tag) <= MAX_TAG or not tag.isprintable() or " " in tag:
            raise ConfigError(f"tags has {tag!r}; a tag is one word of at most {MAX_TAG} letters")


def check_precision(precision: str) -> None:
    """Raise ConfigError for another word than those of Precision."""
    if precision not in get_args(Precision):
        raise ConfigError(f"precision = {precision!r} is neither {' nor '.join(get_args(Precision))}")


def resumed(cls: type[R], path: Path, settings: Iterable[str]) -> R:
    """The recipe with which a run goes on: its own at `path`, with settings such as `steps=200`.

    What changes holds from the next step on. With another length the rest of the schedule is that of the new
    length: a cosine over 200 steps in place of 100 begins again half-way at step 100. Without settings the
    run goes on bit for bit. Raises ConfigError for one on which the steps before depend.
    """
    own, new = configs.load(cls, path), configs.load(cls, path, settings)
    require_same_past(own, new)
    return new


def require_same_past(own: Recipe, new: Recipe) -> None:
    """Raise ConfigError naming a setting that a run's own recipe has otherwise, and that may not change.

    A path counts by its last part: a run's folder, and what it was made from, may have been moved.
    """
    for name, (before, after) in configs.changes(configs.table(own), configs.table(new)).items():
        may_change = any(name == field or name.startswith(f"{field}.") for field in own.CAN_CHANGE)
        if not may_change and _without_folders(before) != _without_folders(after):
            raise ConfigError(
                f"{name} = {after!r} cannot be set on --resume: the steps so far were taken with {before!r}; "
                f"start anew in another --out, or set one of {', '.join(sorted(own.CAN_CHANGE))}"
            )


def check_past(config: RunConfig, out: Path) -> None:
    """Raise ConfigError for a recipe with which the checkpoints in a run's folder cannot have been made.

    Called with the folder's lock held: another process may have begun a run of its own there since the recipe
    was read.
    """
    path = out / "config.toml"
    if (out / "checkpoints").exists() and path.is_file():
        require_same_past(configs.load(type(config), path), config)


def _without_folders(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_folders(item) for item in value]
    if isinstance(value, dict):
        return {name: _without_folders(item) for name, item in value.items()}
    is_path = isinstance(value, str) and "/" in value and value.isprintable() and " " not in value
    return PurePath(value).name if is_path else value
