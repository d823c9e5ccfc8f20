"""A note and tags on a run, written into its recipe after it began."""

import tomllib
from collections.abc import Sequence
from pathlib import Path

from shoestring.durable import write_atomic
from shoestring.errors import ConfigError
from shoestring.train.runs.recipe import check_tags


def write_note(out: Path, text: str | None, tags: Sequence[str]) -> None:
    """Replace the note of the run in `out`, its tags, or both, in config.toml; nothing else is touched.

    Raises ConfigError without a recipe, with nothing to write, or for a tag that is not one word.
    """
    import tomli_w

    check_tags(tags)
    if text is None and not tags:
        raise ConfigError('nothing to note; give a text, or --tag: shoestring runs note RUN "..." --tag word')
    path = out / "config.toml"
    try:
        recipe = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path} cannot be read ({error}); it is the run's recipe") from None
    recipe |= {} if text is None else {"note": text}
    recipe |= {"tags": list(tags)} if tags else {}
    write_atomic(path, tomli_w.dumps(recipe))
