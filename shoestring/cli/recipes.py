"""The recipe of a training command: from a file, from `--set` alone, or with `--resume` that of the run."""

from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from shoestring.train.runs.recipe import Recipe

R = TypeVar("R", bound="Recipe")


def load_recipe(cls: type[R], recipe: Path | None, out: Path, resume: bool, settings: list[str]) -> R:
    """The recipe: from the file and --set, or --set alone; with `resume` the run's own, with --set.

    Raises ConfigError for a setting on which the steps so far depend.
    """
    from shoestring import config as configs
    from shoestring.errors import ConfigError
    from shoestring.train.runs.recipe import resumed

    if resume:
        if recipe is not None:
            raise ConfigError(f"--resume takes the recipe from {out / 'config.toml'}; leave out {recipe}")
        return resumed(cls, own_recipe(out), settings)
    if recipe is None:
        return configs.build(cls, configs.override({}, settings), where="--set")
    return configs.load(cls, recipe, settings)


def own_recipe(out: Path) -> Path:
    """The recipe of the run in `out`; ConfigError where there is none to resume."""
    from shoestring.errors import ConfigError

    own = out / "config.toml"
    if not own.is_file():
        raise ConfigError(f"{out} has no run to resume; leave out --resume")
    return own
