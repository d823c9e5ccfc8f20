"""The models of this machine: the package's, those fetched or quantized, the hub's, those of trainings."""

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from shoestring.durable import bytes_in, cache_folder
from shoestring.engine.offline.inventory import hub_models
from shoestring.errors import ConfigError
from shoestring.model.hf.hub import EMBEDDED_MODEL, resolve
from shoestring.serve.training.folder import RunsFolder, has_file
from shoestring.serve.training.stages import stages_of

Source = Literal["package", "folder", "hub", "training"]
FOLDER = "models"
"""The folder of the cache for models that were fetched or quantized here."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}")


@dataclass(frozen=True, kw_only=True)
class Place:
    """A model's folder, and the name by which it is served."""

    name: str
    folder: Path
    source: Source

    @property
    def num_bytes(self) -> int:
        """Bytes on the disk."""
        return bytes_in(self.folder)


def places(runs: RunsFolder) -> dict[str, Place]:
    """The models of this machine by name."""
    by_name: dict[str, Place] = {}
    for place in _places(runs):
        by_name.setdefault(place.name, place)
    return by_name


def _places(runs: RunsFolder) -> Iterator[Place]:
    yield Place(name=EMBEDDED_MODEL, folder=resolve(EMBEDDED_MODEL), source="package")
    folder = cache_folder(FOLDER)
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if is_folder_name(path.name) and not path.is_symlink() and has_file(path, "config.json"):
            yield Place(name=path.name, folder=path, source="folder")
    for name, path in hub_models().items():
        if (path / "config.json").is_file():  # the hub's own files are links to its blobs
            yield Place(name=name, folder=path, source="hub")
    for run in runs.names():
        for stage in stages_of(runs.root / run):
            model = (runs.root / run).joinpath(*stage.model_parts)
            if has_file(runs.root / run, *stage.model_parts, "config.json"):
                name = f"{run}/{stage.name}" if stage.name else run
                yield Place(name=name, folder=model, source="training")


def is_folder_name(name: str) -> bool:
    """Return whether a name may be that of a model's own folder in the cache."""
    return _NAME.fullmatch(name) is not None and ".tmp-" not in name


def new_place(name: str) -> Path:
    """The folder of a new model in the cache. Raises ConfigError for a name that is none or taken."""
    if not is_folder_name(name):
        raise ConfigError(f"{name[:100]!r} is no name for a model; use letters, digits, '.', '_' and '-'")
    path = cache_folder(FOLDER) / name
    if path.exists() or path.is_symlink():
        raise ConfigError(f"there is a model {name} already")
    return path


def remove(place: Place) -> None:
    """Erase a model that was fetched or quantized. Raises ConfigError for others."""
    if place.source == "folder":
        shutil.rmtree(place.folder)
    elif place.source == "hub":
        from huggingface_hub import scan_cache_dir

        cache = scan_cache_dir()
        hashes = [r.commit_hash for repo in cache.repos if repo.repo_id == place.name for r in repo.revisions]
        cache.delete_revisions(*hashes).execute()
    else:
        raise ConfigError(f"{place.name} belongs to the {place.source}, and stays as long as that")


def changed_ns(place: Place) -> int:
    """The time at which a model was written, by its config.json; 0 without one."""
    try:
        return (place.folder / "config.json").stat().st_mtime_ns
    except OSError:
        return 0
