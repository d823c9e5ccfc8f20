"""The recipe of a training command: from a file, from `--set` alone, or with `--resume` that of the run."""

from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


def load_recipe(cls: type[T], recipe: Path | None, out: Path, resume: bool, settings: list[str]) -> T:
    """The recipe: with `resume` that of the run, unchanged; else from the file and --set, or --set alone."""
    from shoestring import config as configs
    from shoestring.errors import ConfigError

    if resume:
        if recipe is not None or settings:
            raise ConfigError(
                f"--resume takes the recipe from {out / 'config.toml'}; leave out the recipe and --set"
            )
        return configs.load(cls, own_recipe(out))
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
