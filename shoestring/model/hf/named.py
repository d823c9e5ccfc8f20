"""A model by its name: a folder or a hub name, adapters added to it with `+`, or an adapter alone."""

import os
from pathlib import Path

from shoestring.errors import CheckpointError
from shoestring.model.hf.adapter_config import CONFIG, base_of
from shoestring.model.hf.checkpoint import Checkpoint
from shoestring.model.hf.config import CONFIG_NAME
from shoestring.model.hf.hub import resolve


def open_model(name: str | Path) -> Checkpoint:
    """The checkpoint of MODEL, or of MODEL+ADAPTER with one adapter or several, each a folder or a hub name.

    An adapter's name alone means it on the model that it was made for. Raises what `resolve` raises, and
    CheckpointError for an adapter that is none.
    """
    first, *others = split_name(str(name))
    folder, adapters = resolve(first), [resolve(other) for other in others]
    if is_adapter(folder):
        folder, adapters = resolve(base_of(folder)), [folder, *adapters]
    for adapter in adapters:
        if not (adapter / CONFIG).is_file():
            raise CheckpointError(f"{adapter} is no adapter: it has no {CONFIG}; give one that PEFT can open")
    return Checkpoint(folder, tuple(adapters))


def split_name(name: str) -> list[str]:
    """The names of a model and its adapters; a `+` in the name of a folder that exists separates nothing."""
    parts, names = name.split("+"), []
    while parts:
        ends = range(len(parts), 0, -1)
        is_path = (end for end in ends if os.path.exists(os.path.expanduser("+".join(parts[:end]))))
        end = next(is_path, 1)
        names.append("+".join(parts[:end]))
        parts = parts[end:]
    return names


def is_adapter(folder: Path) -> bool:
    """Return whether a folder holds an adapter and no model."""
    return (folder / CONFIG).is_file() and not (folder / CONFIG_NAME).is_file()
