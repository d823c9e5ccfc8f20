"""Finished folders: sealed with the size and SHA-256 of every file, verified when opened."""

import hashlib
import json
from pathlib import Path
from typing import Any

from shoestring.errors import DataError

MANIFEST = "manifest.json"


def sha256_of(path: Path) -> str:
    """Hex SHA-256 of a file; raises OSError."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def seal(folder: Path, manifest: dict[str, Any]) -> None:
    """Write the manifest with the size and SHA-256 of every other file in the folder."""
    stored = {
        path.name: {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
        for path in sorted(folder.iterdir())
    }
    text = json.dumps({**manifest, "stored": stored}, indent=1, ensure_ascii=False)
    (folder / MANIFEST).write_text(text + "\n", encoding="utf-8")


def open_sealed(folder: Path, *, kind: str, names: tuple[str, ...]) -> dict[str, Any]:
    """The manifest of a sealed folder, after checking kind, size and SHA-256 of the files `names`.

    Raises DataError naming the first file that is missing, damaged or not ours.
    """
    again = f"delete {folder} and it is made again"
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_bytes())
        stored = dict(manifest["stored"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise DataError(f"{path} is missing or damaged; {again}") from None
    if manifest.get("kind") != kind:
        raise DataError(f"{path} does not describe {kind}; {again}")
    for name in names:
        want = stored.get(name)
        try:
            size = (folder / name).stat().st_size
            if (
                not isinstance(want, dict)
                or size != want.get("bytes")
                or sha256_of(folder / name) != want.get("sha256")
            ):
                raise DataError(f"{folder / name} is not the file its manifest describes; {again}")
        except OSError as error:
            raise DataError(f"{folder / name} cannot be read ({error.strerror}); {again}") from None
    return dict(manifest)
